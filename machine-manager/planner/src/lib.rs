//! Where instances go, which nodes to buy and what may be spent: the pure decision.
