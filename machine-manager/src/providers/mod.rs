//! The providers: `static` (nodes that join by themselves) and `local` (child processes).

pub mod local;
mod process;
pub mod static_;

pub use local::{LocalConfig, LocalProvider, TERM_LIMIT};
pub use static_::StaticProvider;
