//! Mode `tcp`: one listener per service port, the instance chosen per connection, bytes passed both
//! ways in user space.

mod counts;
pub mod flow;
mod join;
mod pipe;
mod place;
mod ports;
mod serve;
mod tell;

pub use counts::Counts;
pub use ports::{Ports, keep};
pub use serve::work;
pub use tell::Scrape;
