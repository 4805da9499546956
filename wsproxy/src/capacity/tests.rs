use std::fs;

use super::*;

fn plenty() -> Host {
    Host {
        descriptors: Some(10_000_000),
        nr_open: Some(10_000_000),
        free_files: Some(10_000_000),
        ports: Some(64_512),
        memory: Some(1 << 40),
        memory_limit: None,
        tcp_pages: Some(1 << 30),
        epoll_watches: Some(10_000_000),
        conntrack_free: Some(10_000_000),
        backlog: Some(65_535),
        time_wait: Some(10_000_000),
    }
}

fn plan(sessions: u64) -> Plan {
    Plan { sessions, servers: 40, tls: false }
}

fn verdicts(plan: &Plan, host: &Host) -> Vec<(&'static str, Verdict)> {
    let all = needs(plan, host).into_iter();
    all.filter(|need| need.verdict != Verdict::Enough).map(|n| (n.what, n.verdict)).collect()
}

#[test]
fn a_host_with_plenty_has_enough() {
    for sessions in [1, 10_000, 100_000] {
        assert_eq!(verdicts(&plan(sessions), &plenty()), []);
    }
    let large = verdicts(&plan(1_000_000), &plenty());
    assert_eq!(large, [("limits.max_sessions", Verdict::Advice)]);
    let too_many = verdicts(&plan(1_000_001), &plenty());
    assert_eq!(too_many, [("limits.max_sessions", Verdict::TooLittle)]);
}

/// Whatever is a little less than needed is found, and only that.
#[test]
fn each_thing_that_is_too_little_is_told_with_what_to_do() {
    type Field = fn(&mut Host) -> &mut Option<u64>;
    let fields: [(&str, Field); 9] = [
        ("descriptors of the process", |host| &mut host.descriptors),
        ("open files of the system", |host| &mut host.free_files),
        ("local ports for each server address", |host| &mut host.ports),
        ("memory", |host| &mut host.memory),
        ("memory for TCP (net.ipv4.tcp_mem)", |host| &mut host.tcp_pages),
        ("sockets that epoll watches", |host| &mut host.epoll_watches),
        ("tracked connections (conntrack)", |host| &mut host.conntrack_free),
        ("connections that wait to be accepted", |host| &mut host.backlog),
        ("connections in TIME_WAIT", |host| &mut host.time_wait),
    ];
    let plan = plan(100_000);
    for (what, field) in fields {
        let of =
            |host: &Host| needs(&plan, host).into_iter().find(|need| need.what == what).unwrap();
        let needed = of(&plenty()).needed;
        // Of the ports only a share is planned with.
        let share = if what.starts_with("local ports") { PORT_SHARE } else { 100 };
        let mut host = plenty();
        *field(&mut host) = Some((needed * 100).div_ceil(share));
        assert_eq!(of(&host).verdict, Verdict::Enough, "{what}");
        assert!(of(&host).remedy.is_empty(), "{what}");
        *field(&mut host) = field(&mut host).map(|enough| enough - 1);
        let found = of(&host);
        assert!(matches!(found.verdict, Verdict::TooLittle | Verdict::Advice), "{found:?}");
        assert!(!found.remedy.is_empty(), "{what}");
        assert_eq!(verdicts(&plan, &host).len(), 1, "{what}");
    }
}

#[test]
fn what_is_not_known_is_no_reason_to_say_no() {
    let found = needs(&plan(10_000), &Host::default());
    assert!(found.iter().all(|need| need.verdict != Verdict::TooLittle));
    assert!(found.iter().any(|need| need.verdict == Verdict::Unknown));
    assert!(!found.iter().any(|need| need.what.contains("conntrack")), "nothing is tracked");
}

#[test]
fn sessions_are_spread_over_servers_and_tls_takes_more() {
    let of = |plan: &Plan, what: &str| {
        let all = needs(plan, &plenty());
        all.into_iter().find(|need| need.what.starts_with(what)).unwrap()
    };
    let one = Plan { sessions: 100_000, servers: 1, tls: false };
    assert_eq!(of(&one, "local ports").verdict, Verdict::TooLittle);
    assert!(
        of(&one, "local ports").remedy.contains("at least 2 server"),
        "{:?}",
        of(&one, "local")
    );
    let two = Plan { servers: 2, ..one };
    assert_eq!(of(&two, "local ports").needed, 50_000);
    assert_eq!(of(&two, "local ports").verdict, Verdict::Enough);
    let tls = Plan { tls: true, ..two };
    let more = of(&tls, "memory").needed - of(&two, "memory").needed;
    assert_eq!(more, 100_000 * 8 * 1024);
}

#[test]
fn a_host_is_read_from_proc_and_sys() {
    let root = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    assert_eq!(Host::read(root.path()), Host::default(), "nothing is known, nothing guessed");
    put("proc/sys/fs/nr_open", "1048576\n");
    put("proc/sys/fs/file-nr", "1200\t0\t2466170\n");
    put("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n");
    put("proc/sys/net/ipv4/ip_local_reserved_ports", "8080,40000-40009,60999-61010\n");
    put("proc/meminfo", "MemTotal: 9 kB\nMemAvailable:    2048 kB\n");
    put("proc/self/cgroup", "0::/system.slice/wsproxy.service\n");
    put("sys/fs/cgroup/system.slice/wsproxy.service/memory.max", "max\n");
    put("sys/fs/cgroup/system.slice/memory.max", "1048576\n");
    put("proc/sys/net/ipv4/tcp_mem", "1\t2\t3\n");
    put("proc/sys/fs/epoll/max_user_watches", "77\n");
    put("proc/sys/net/netfilter/nf_conntrack_max", "100\n");
    put("proc/sys/net/netfilter/nf_conntrack_count", "30\n");
    put("proc/sys/net/core/somaxconn", "4096\n");
    put("proc/sys/net/ipv4/tcp_max_tw_buckets", "55\n");
    let expected = Host {
        descriptors: None,
        nr_open: Some(1_048_576),
        free_files: Some(2_464_970),
        ports: Some(28_232 - 10 - 1),
        memory: Some(2 << 20),
        memory_limit: Some(1 << 20),
        tcp_pages: Some(2),
        epoll_watches: Some(77),
        conntrack_free: Some(70),
        backlog: Some(4096),
        time_wait: Some(55),
    };
    assert_eq!(Host::read(root.path()), expected);
}

#[test]
fn both_forms_say_the_same() {
    let host = Host { ports: Some(1000), ..plenty() };
    let plan = Plan { sessions: 10_000, servers: 1, tls: false };
    let (mut text, mut json) = (Vec::new(), Vec::new());
    assert!(!run(&plan, &host, false, &mut text).unwrap());
    assert!(!run(&plan, &host, true, &mut json).unwrap());
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("too little  local ports for each server address: 10,000 ports needed"));
    assert!(text.contains("10,000 sessions do not fit on this host: 1 of 10 things"), "{text}");
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["fits"], false);
    let ports = &json["needs"][3];
    assert_eq!((&ports["needed"], &ports["there"]), (&10_000.into(), &800.into()));
    assert_eq!(ports["verdict"], "too little");
}

#[test]
fn thousands_stand_apart() {
    for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
        assert_eq!(grouped(n), text);
    }
}

/// What `docs/TUNING.md` says of three sizes is what the arithmetic says.
#[test]
fn the_documents_table_is_right() {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/TUNING.md");
    let document = fs::read_to_string(document).unwrap();
    let row = |start: &str| -> Vec<String> {
        let line = document.lines().find(|line| line.starts_with(start)).unwrap();
        line.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    for (at, sessions) in [(2, 10_000), (3, 100_000), (4, 1_000_000)] {
        let of = |what: &str| {
            let plan = Plan { sessions, servers: 1, tls: false };
            let all = needs(&plan, &Host::default());
            all.into_iter().find(|need| need.what.starts_with(what)).unwrap().needed
        };
        let rows = [
            ("| `LimitNOFILE`", of("descriptors")),
            ("| `fs.file-max`", 2 * of("open files")),
            ("| `fs.epoll", of("sockets that epoll")),
            ("| `net.core.somaxconn`", of("connections that wait")),
            ("| `net.ipv4.tcp_max_tw", of("connections in TIME_WAIT")),
            ("| server addresses, with the default", of("local ports").div_ceil(22_585)),
        ];
        for (start, number) in rows {
            assert_eq!(row(start)[at], grouped(number), "{start} {sessions}");
        }
        let tcp = row("| `net.ipv4.tcp_mem`");
        let first: u64 = tcp[at].split(' ').next().unwrap().parse().unwrap();
        assert_eq!(first, of("memory for TCP"));
    }
}
