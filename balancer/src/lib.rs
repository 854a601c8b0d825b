//! The front door: holds, picks, forwards and tells what it saw.
