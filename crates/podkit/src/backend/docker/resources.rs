//! Limits that change, and what a container uses, in the engine's words. Pure functions.

use std::time::{Duration, SystemTime};

use bollard::models::{ContainerInspectResponse, ContainerStatsResponse, ContainerUpdateBody};

use super::convert::CPU_PERIOD_US;
use crate::{
    backend::{Limits, stats::ContainerStats},
    error::{Error, ErrorKind, Result},
};

/// The engine's order for a change of limits. The limit of memory with swap moves along with the one
/// without.
pub(super) fn change(limits: Limits, now: &ContainerInspectResponse) -> ContainerUpdateBody {
    let host = now.host_config.as_ref();
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let memory_now = host.and_then(|host| host.memory).unwrap_or(0);
    let both_now = host.and_then(|host| host.memory_swap).unwrap_or(0);
    let memory = limits.memory_bytes.map_or(memory_now, signed);
    let swap = match limits.swap_bytes {
        Some(swap) => signed(swap),
        None => both_now.saturating_sub(memory_now).max(0),
    };
    let moves = limits.memory_bytes.is_some() || limits.swap_bytes.is_some();
    // -1 is without a limit, and 0 the engine's own choice.
    let both = match (limits.swap_bytes, both_now) {
        (None, -1) => -1,
        _ => memory.saturating_add(swap),
    };
    ContainerUpdateBody {
        memory: moves.then_some(memory),
        memory_swap: moves.then_some(both),
        cpu_period: limits.cpu_millis.map(|_| CPU_PERIOD_US),
        cpu_quota: limits
            .cpu_millis
            .map(|millis| i64::from(millis) * (CPU_PERIOD_US / 1000)),
        pids_limit: limits.pids_max.map(i64::from),
        ..ContainerUpdateBody::default()
    }
}

/// The engine's answer in the library's words.
///
/// # Errors
/// `ContainerGone`: the engine knows the container, and it does not run.
pub(super) fn stats(at: SystemTime, answer: &ContainerStatsResponse) -> Result<ContainerStats> {
    let pids = answer.pids_stats.as_ref();
    let memory = answer.memory_stats.as_ref();
    let used = memory.and_then(|memory| memory.usage);
    let running = pids.and_then(|pids| pids.current).is_some_and(|n| n > 0) || used.is_some();
    if !running {
        return Err(Error::new(
            ErrorKind::ContainerGone,
            "the container does not run",
        ));
    }
    let cached = memory
        .and_then(|memory| memory.stats.as_ref())
        .and_then(|stats| {
            let names = ["total_inactive_file", "inactive_file"];
            names.iter().find_map(|name| stats.get(*name).copied())
        })
        .unwrap_or(0);
    let cpu = answer.cpu_stats.as_ref();
    let cpu = cpu
        .and_then(|cpu| cpu.cpu_usage.as_ref())
        .and_then(|cpu| cpu.total_usage);
    let networks = answer.networks.as_ref();
    let sum = |one: fn(&bollard::models::ContainerNetworkStats) -> Option<u64>| {
        networks.map(|all| all.values().filter_map(one).fold(0, u64::saturating_add))
    };
    Ok(ContainerStats {
        cpu_time: cpu.map(Duration::from_nanos),
        memory_bytes: used.map(|used| used.saturating_sub(cached)),
        // Without a limit engines tell what the machine has, or the largest number there is.
        memory_limit_bytes: memory
            .and_then(|memory| memory.limit)
            .filter(|limit| (1..1 << 60).contains(limit)),
        pids: pids.and_then(|pids| pids.current),
        pids_limit: pids
            .and_then(|pids| pids.limit)
            .filter(|limit| (1..1 << 60).contains(limit)),
        network_rx_bytes: sum(|one| one.rx_bytes),
        network_tx_bytes: sum(|one| one.tx_bytes),
        disk_read_bytes: disk(answer, "read"),
        disk_written_bytes: disk(answer, "write"),
        ..ContainerStats::new(at)
    })
}

fn disk(answer: &ContainerStatsResponse, operation: &str) -> Option<u64> {
    let all = answer.blkio_stats.as_ref()?;
    let entries = all.io_service_bytes_recursive.as_ref()?;
    let mine = entries.iter().filter(|entry| {
        entry
            .op
            .as_ref()
            .is_some_and(|op| op.eq_ignore_ascii_case(operation))
    });
    Some(
        mine.filter_map(|entry| entry.value)
            .fold(0, u64::saturating_add),
    )
}
