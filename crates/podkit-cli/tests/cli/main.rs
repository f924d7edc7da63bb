//! The real binary, as its users run it.

#[cfg(test)]
mod exec;
#[cfg(test)]
mod processes;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod support;
#[cfg(test)]
mod usage;
