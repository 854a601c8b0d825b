//! What every story needs: the built binary, a platform of real processes, requests, waiting.
//!
//! Stories wait for a level with a deadline, never for a time; a deadline only says that something
//! hangs.

pub mod load;
pub mod platform;
pub mod redis;
pub mod wait;
