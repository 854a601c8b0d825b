//! The scoreboard: routes, loads and demand, live and quick; losing it costs freshness, not truth.

pub mod board;
pub mod codec;
#[cfg(any(test, feature = "testing"))]
pub mod contract;
pub mod keys;
pub mod memory;
pub mod redis;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use board::{BalancerSeen, Board, BoardError, BoardView, Changes, ServiceView};
pub use memory::MemoryBoard;
pub use redis::RedisBoard;
