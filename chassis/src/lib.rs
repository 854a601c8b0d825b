//! What every process rides on: configuration, telemetry, clocks, shutdown, HTTP, credentials.
