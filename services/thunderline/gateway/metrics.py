"""What the gateway counts."""

from prometheus_client import Counter, Gauge, Histogram

_WAITS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3, 6, 12, 25, 60)

REQUESTS = Counter("thunderline_requests_total", "Requests by model and HTTP status.", ["model", "code"])
FIRST_TOKEN = Histogram(
    "thunderline_time_to_first_token_seconds", "From a request to its first token.", ["model"], buckets=_WAITS
)
BETWEEN_TOKENS = Histogram(
    "thunderline_inter_token_latency_seconds", "Between two messages with tokens.", ["model"], buckets=_WAITS
)
TOKENS = Counter("thunderline_tokens_total", "Tokens of prompts (in) and answers (out).", ["model", "direction"])
IN_FLIGHT = Gauge("thunderline_requests_in_flight", "Requests that are being answered.")
DISCONNECTS = Counter("thunderline_client_disconnects_total", "Clients that left before their answer was complete.")
CONNECTIONS = Gauge("thunderline_connections", "Open connections of clients.")
RESUMES = Counter("thunderline_resumes_total", "Streams that broke and were resumed, by what broke them.", ["reason"])
RESUME_PAUSE = Histogram("thunderline_resume_pause_seconds", "From a stream's break to its next token.", buckets=_WAITS)
