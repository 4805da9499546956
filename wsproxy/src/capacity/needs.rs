//! What sessions take, one function a thing.

use super::{Host, Need, Plan, Verdict, grouped};
use crate::{
    config::MAX_SESSIONS_MAX,
    limits::{self, MOST_BY_DEFAULT},
};

/// Most sessions of one process (`limits.max_sessions`).
const MOST_SESSIONS: u64 = MAX_SESSIONS_MAX as u64;
/// Connections to one server are planned for this share of the ports, in percent: the kernel
/// looks for a free one the longer the fewer there are, and those of ended connections are in
/// TIME_WAIT for a minute.
pub const PORT_SHARE: u64 = 80;
/// Bytes of user space for an idle session, measured (docs/BENCHMARKS.md, "Gateway").
const USER: u64 = 600;
/// More of it with TLS: keys, and the buffers of a connection.
const USER_TLS: u64 = 8 * 1024;
/// Bytes of the kernel for its two sockets, their files and what is registered of them: measured
/// 17.7 KiB for client, gateway and server together, which have four.
const KERNEL: u64 = 9 * 1024;
/// Bytes of the tables for each session that there may be, used or not: two directions on each
/// path (`Direction`, `Flow`), and an entry in each map.
const TABLES: u64 = 1536;
/// Of a hundred sessions, how many have bytes on their way at a time.
const BUSY: u64 = 10;
/// Bytes that a busy session has in the buffers of its two sockets.
const IN_BUFFERS: u64 = 64 * 1024;
/// Bytes of the process without a session.
const PROCESS: u64 = 64 << 20;
/// Bytes of a page.
const PAGE: u64 = 4096;
/// The queue of connections that wait to be accepted, as a share of the sessions: after a failure
/// their clients come back at once.
const COME_BACK: u64 = 20;

/// All there is to say.
#[must_use]
pub fn needs(plan: &Plan, host: &Host) -> Vec<Need> {
    let mut all = vec![
        configured(plan),
        descriptors(plan, host),
        files(plan, host),
        ports(plan, host),
        memory(plan, host),
        tcp_memory(plan, host),
        watches(plan, host),
    ];
    all.extend(conntrack(plan, host));
    all.push(queue(plan, host));
    all.push(time_wait(plan, host));
    all
}

/// The verdict of comparing, `otherwise` where there is too little.
fn compare(there: Option<u64>, needed: u64, otherwise: Verdict) -> Verdict {
    match there {
        None => Verdict::Unknown,
        Some(there) if there >= needed => Verdict::Enough,
        Some(_) => otherwise,
    }
}

fn remedy(verdict: Verdict, text: impl FnOnce() -> String) -> String {
    if verdict == Verdict::Enough { String::new() } else { text() }
}

fn configured(plan: &Plan) -> Need {
    let needed = plan.sessions;
    let verdict = if needed > MOST_SESSIONS {
        Verdict::TooLittle
    } else if needed > MOST_BY_DEFAULT {
        Verdict::Advice
    } else {
        Verdict::Enough
    };
    Need {
        what: "limits.max_sessions",
        verdict,
        needed,
        there: Some(if needed > MOST_BY_DEFAULT { MOST_SESSIONS } else { MOST_BY_DEFAULT }),
        unit: "sessions",
        because: format!(
            "\"auto\" is {} at most, the key takes up to {}",
            grouped(MOST_BY_DEFAULT),
            grouped(MOST_SESSIONS)
        ),
        remedy: remedy(verdict, || {
            if needed > MOST_SESSIONS {
                "run several hosts: a process has a place for 1,000,000 sessions at most".into()
            } else {
                format!("set `limits.max_sessions = {needed}` in the configuration")
            }
        }),
    }
}

/// Descriptors for the sessions, as the gateway itself counts them.
#[must_use]
pub fn descriptors_needed(plan: &Plan) -> u64 {
    let sessions = u32::try_from(plan.sessions).unwrap_or(u32::MAX);
    limits::descriptors_for(sessions)
}

fn descriptors(plan: &Plan, host: &Host) -> Need {
    let needed = descriptors_needed(plan);
    let verdict = compare(host.descriptors, needed, Verdict::TooLittle);
    Need {
        what: "descriptors of the process",
        verdict,
        needed,
        there: host.descriptors,
        unit: "descriptors",
        because: "2 sockets a session, and 256 for all else; there is what a process started \
                  here may have, a service has its own LimitNOFILE"
            .into(),
        remedy: remedy(verdict, || {
            let more = match host.nr_open {
                Some(most) if most < needed => format!("`sysctl -w fs.nr_open={needed}` and "),
                _ => String::new(),
            };
            format!("{more}`LimitNOFILE={needed}` in the unit (`ulimit -Hn` in a shell)")
        }),
    }
}

fn files(plan: &Plan, host: &Host) -> Need {
    let needed = descriptors_needed(plan);
    let verdict = compare(host.free_files, needed, Verdict::TooLittle);
    Need {
        what: "open files of the system",
        verdict,
        needed,
        there: host.free_files,
        unit: "files",
        because: "every descriptor is one; there is fs.file-max without those that are open".into(),
        remedy: remedy(verdict, || format!("`sysctl -w fs.file-max={}`", 2 * needed)),
    }
}

fn ports(plan: &Plan, host: &Host) -> Need {
    let servers = plan.servers.max(1);
    let needed = plan.sessions.div_ceil(servers);
    let usable = host.ports.map(|ports| ports * PORT_SHARE / 100);
    let verdict = compare(usable, needed, Verdict::TooLittle);
    Need {
        what: "local ports for each server address",
        verdict,
        needed,
        there: usable,
        unit: "ports",
        because: format!(
            "each session to the same server address takes another local port; {} sessions over \
             {} server addresses; {PORT_SHARE} % of net.ipv4.ip_local_port_range are planned with",
            grouped(plan.sessions),
            grouped(servers)
        ),
        remedy: remedy(verdict, || {
            let widest = (65_535 - 1024 + 1) * PORT_SHARE / 100;
            let servers = plan.sessions.div_ceil(widest);
            format!(
                "`sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\"` (reserve the ports of \
                 your services with net.ipv4.ip_local_reserved_ports), and at least {servers} \
                 server address(es): further ports or addresses of the same servers do"
            )
        }),
    }
}

fn memory(plan: &Plan, host: &Host) -> Need {
    let user = USER + if plan.tls { USER_TLS } else { 0 };
    let idle = plan.sessions * (user + KERNEL + TABLES);
    let needed = PROCESS + idle + busy(plan);
    let there = match (host.memory, host.memory_limit) {
        (Some(free), Some(limit)) => Some(free.min(limit)),
        (free, limit) => free.or(limit),
    };
    let verdict = compare(there, needed, Verdict::TooLittle);
    Need {
        what: "memory",
        verdict,
        needed,
        there,
        unit: "bytes",
        because: format!(
            "{} a session: {user} in user space{}, {KERNEL} for its sockets, {TABLES} for its \
             places in tables; {BUSY} % of the sessions have {} more in their buffers; {} for the \
             process",
            grouped(user + KERNEL + TABLES),
            if plan.tls { " (with TLS)" } else { "" },
            grouped(IN_BUFFERS),
            grouped(PROCESS)
        ),
        remedy: remedy(verdict, || {
            "more memory, or fewer sessions; a control group's memory.max counts too".into()
        }),
    }
}

/// Bytes in the buffers of sessions that are busy.
fn busy(plan: &Plan) -> u64 {
    plan.sessions * BUSY / 100 * IN_BUFFERS
}

fn tcp_memory(plan: &Plan, host: &Host) -> Need {
    let needed = busy(plan).div_ceil(PAGE);
    let verdict = compare(host.tcp_pages, needed, Verdict::TooLittle);
    Need {
        what: "memory for TCP (net.ipv4.tcp_mem)",
        verdict,
        needed,
        there: host.tcp_pages,
        unit: "pages",
        because: format!(
            "{BUSY} % of the sessions with {} bytes in their buffers; beyond the second number of \
             net.ipv4.tcp_mem the kernel makes buffers smaller, beyond the third it drops",
            grouped(IN_BUFFERS)
        ),
        remedy: remedy(verdict, || {
            let (pressure, most) = (needed + needed / 4, needed * 2);
            format!("`sysctl -w net.ipv4.tcp_mem=\"{needed} {pressure} {most}\"`")
        }),
    }
}

fn watches(plan: &Plan, host: &Host) -> Need {
    let needed = plan.sessions * 2 + 1024;
    let verdict = compare(host.epoll_watches, needed, Verdict::TooLittle);
    Need {
        what: "sockets that epoll watches",
        verdict,
        needed,
        there: host.epoll_watches,
        unit: "watches",
        because: "both sockets of a session; fs.epoll.max_user_watches is for all processes of \
                  a user"
            .into(),
        remedy: remedy(verdict, || format!("`sysctl -w fs.epoll.max_user_watches={needed}`")),
    }
}

/// Nothing where the kernel tracks no connections.
fn conntrack(plan: &Plan, host: &Host) -> Option<Need> {
    let there = host.conntrack_free?;
    let needed = plan.sessions * 2;
    let verdict = compare(Some(there), needed, Verdict::TooLittle);
    Some(Need {
        what: "tracked connections (conntrack)",
        verdict,
        needed,
        there: Some(there),
        unit: "entries",
        because: "both connections of a session, if a rule has the kernel track them; there is \
                  net.netfilter.nf_conntrack_max without those in use"
            .into(),
        remedy: remedy(verdict, || {
            let most = needed + needed / 4;
            format!(
                "`sysctl -w net.netfilter.nf_conntrack_max={most}`, with \
                 net.netfilter.nf_conntrack_buckets={} for its table, or `notrack` for these ports",
                most.div_ceil(4)
            )
        }),
    })
}

fn queue(plan: &Plan, host: &Host) -> Need {
    let needed = (plan.sessions / COME_BACK).clamp(128, 65_535);
    let verdict = compare(host.backlog, needed, Verdict::Advice);
    Need {
        what: "connections that wait to be accepted",
        verdict,
        needed,
        there: host.backlog,
        unit: "connections",
        because: format!(
            "1 of {COME_BACK} sessions comes back within the same moment after a failure (65,535 \
             at most); there is net.core.somaxconn"
        ),
        remedy: remedy(verdict, || {
            format!(
                "`sysctl -w net.core.somaxconn={needed}` and `listener.backlog = {needed}`; who \
                 finds the queue full tries again after a second"
            )
        }),
    }
}

fn time_wait(plan: &Plan, host: &Host) -> Need {
    let needed = plan.sessions * 2;
    let verdict = compare(host.time_wait, needed, Verdict::Advice);
    Need {
        what: "connections in TIME_WAIT",
        verdict,
        needed,
        there: host.time_wait,
        unit: "connections",
        because: "after a drain both connections of each session wait for a minute; there is \
                  net.ipv4.tcp_max_tw_buckets"
            .into(),
        remedy: remedy(verdict, || {
            format!(
                "`sysctl -w net.ipv4.tcp_max_tw_buckets={needed}`; what is beyond is forgotten at \
                 once, which is harmless but for late segments"
            )
        }),
    }
}
