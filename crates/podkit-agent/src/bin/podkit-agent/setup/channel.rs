//! The socket to the engine.

use alloc::{string::String, vec, vec::Vec};
use core::mem::MaybeUninit;

use podkit_agent::{
    FrameBuffer,
    plan::{COMMIT, MAX_DESCRIPTORS, Plan, Report},
};
use rustix::{
    fd::OwnedFd,
    io::{Errno, IoSliceMut},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recv, recvmsg, send},
};

use super::{Failed, Result, Step};
use crate::sys::container::control;

/// One end of it.
pub(super) struct Channel {
    buffer: FrameBuffer,
}

impl Channel {
    pub(super) const fn new() -> Self {
        Self {
            buffer: FrameBuffer::new(),
        }
    }

    /// Waits for the plan and the descriptors that come with it.
    pub(super) fn receive(&mut self) -> Result<(Plan, Vec<OwnedFd>)> {
        let mut descriptors = Vec::new();
        let mut bytes = vec![0_u8; 64 * 1024];
        loop {
            let mut space =
                [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let message = recvmsg(
                control(),
                &mut [IoSliceMut::new(&mut bytes)],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            )
            .step("receive the plan")?;
            if message.bytes == 0 {
                return Err(Errno::PIPE).step("receive the plan");
            }
            for part in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = part {
                    descriptors.extend(rights);
                }
            }
            self.buffer
                .push(bytes.get(..message.bytes).unwrap_or_default());
            match Plan::take(&mut self.buffer) {
                Ok(Some(plan)) => return Ok((plan, descriptors)),
                Ok(None) => {}
                Err(_) => return Err(Errno::PROTO).step("read the plan"),
            }
        }
    }

    /// Tells the engine; an engine that is gone is noticed at the commit.
    pub(super) fn send(&mut self, report: &Report) {
        let mut frame = Vec::new();
        report.encode(&mut frame);
        let _ = send(control(), &frame, SendFlags::NOSIGNAL);
    }

    pub(super) fn fail(&mut self, failed: Failed) {
        self.send(&Report::Failed {
            step: failed.step,
            errno: failed.errno,
        });
    }

    /// Waits until the engine has the container on record: `false` when it is gone.
    pub(super) fn committed(&mut self) -> bool {
        let mut byte = [0_u8];
        loop {
            match recv(control(), &mut byte, RecvFlags::empty()) {
                Ok((_, 1)) => return byte == [COMMIT],
                Err(Errno::INTR) => {}
                Ok(_) | Err(_) => return false,
            }
        }
    }
}

impl Failed {
    /// A failure that the kernel did not name.
    pub(super) const fn because(step: String) -> Self {
        Self { step, errno: 0 }
    }
}
