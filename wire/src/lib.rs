//! What the parts say to each other and to the outside: messages, manifests, problems.
