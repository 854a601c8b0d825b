//! The scoreboard: routes, loads and demand, live and quick; losing it costs freshness, not truth.

pub mod board;
pub mod memory;

pub use board::{BalancerSeen, Board, BoardError, BoardView, Changes, ServiceView};
pub use memory::MemoryBoard;
