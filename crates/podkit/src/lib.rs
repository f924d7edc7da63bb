//! podkit.
#![forbid(unsafe_code)]
