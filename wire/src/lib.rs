//! What the parts say to each other and to the outside: messages, manifests, problems.
//!
//! Wire types are plain and serialisable; each is turned into a domain type at the edge
//! (`TryFrom`, `ManifestError` with a JSON pointer). A recorded example of each message stands in
//! `goldens/`, so that a change of the wire is seen as a change of a file.

pub mod agent;
pub mod assignment;
#[cfg(test)]
mod goldens;
pub mod join;
pub mod manifest;
pub mod node_file;
pub mod operation;
pub mod operator;
pub mod orca;
pub mod picks;
pub mod placement;
pub mod problem;
pub mod quantity;
pub mod report;
pub mod stamp;
pub mod suggest;
pub mod total;

/// Version of the messages between parts; a part refuses a number it does not know.
pub const WIRE_VERSION: u32 = 1;
