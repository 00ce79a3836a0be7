"""The OpenAI door: HTTP and SSE in front of the scheduler."""
