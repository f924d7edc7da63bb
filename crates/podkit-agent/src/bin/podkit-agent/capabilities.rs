//! Capabilities that are given up for good.

use rustix::{
    io::{Errno, Result},
    thread::{
        CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
        remove_capability_from_bounding_set, set_capabilities,
    },
};

/// Highest capability that may exist; the kernel refuses those that do not.
const HIGHEST: u32 = 63;

/// Nothing that this process executes holds more than these.
pub(crate) fn bound(kept: CapabilitySet) -> Result<()> {
    for number in 0..=HIGHEST {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            // The kernel does not have this one, so it has none above it.
            Err(Errno::INVAL) => break,
            other => other?,
        }
    }
    let _ = clear_ambient_capability_set();
    Ok(())
}

/// This process holds these, and passes none on to others' programs.
pub(crate) fn hold(kept: CapabilitySet) -> Result<()> {
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets)
}

/// This process holds no more than these.
pub(crate) fn hold_at_most(kept: CapabilitySet) -> Result<()> {
    let own = capabilities(None)?.permitted;
    hold(own.intersection(kept))
}
