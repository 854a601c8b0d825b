//! Which instance gets this request: the pure decision.
