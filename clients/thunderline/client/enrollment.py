"""EnrollmentService, as a joining node uses it: at the enrolment port, with a token."""

from thunderline.client.connection import Connection, called_again
from thunderline.rpc.channel import dial_enrolment
from thunderline.rpc.rosters import holders
from thunderline.v1 import enrollment_pb2, enrollment_pb2_grpc

__all__ = ["EnrollmentClient", "holders"]


class EnrollmentClient(Connection):
    stub = enrollment_pb2_grpc.EnrollmentServiceStub

    @classmethod
    def joining(cls, target: str, authority_pem: bytes) -> "EnrollmentClient":
        """`authority_pem` shows itself there, and was compared with the token's: process/handshake.py."""
        return cls.over(dial_enrolment(target, authority_pem), target)

    async def sign(self, token: str, request_pem: bytes) -> enrollment_pb2.SignCertificateResponse:
        """Asked again when the answer is lost: for the same key the token still counts for a minute."""
        request = enrollment_pb2.SignCertificateRequest(token=token, certificate_request_pem=request_pem)
        response: enrollment_pb2.SignCertificateResponse = await called_again(self._stub.SignCertificate, request)
        return response
