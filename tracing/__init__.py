"""OpenTelemetry and structured logs: one spelling for every span, attribute and event."""
