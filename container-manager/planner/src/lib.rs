//! How many instances, which go and which come: the pure decision.
