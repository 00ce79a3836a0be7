"""What every gRPC service does alike: serve, dial, map errors."""
