//! The embedded container engine of podkit.
