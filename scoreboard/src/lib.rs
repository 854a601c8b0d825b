//! The live board of routes, loads and demand; may be lost.
