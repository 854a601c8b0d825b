//! HTTP/1.1 as the front door speaks it: strict reading, plain writing, one task per client.

pub mod access;
pub mod answer;
pub mod body;
pub mod chunks;
pub mod client;
pub mod exchange;
pub mod field;
pub mod judge;
pub mod next;
pub mod request;
pub mod serve;
pub mod up;
