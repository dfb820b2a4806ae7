//! Made-up machines: each check on both sides of its border, and what cannot be read.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::config;

/// A machine on which nothing is at fault for [`CONFIG`], as files below a root.
const HEALTHY: &[(&str, &str)] = &[
    ("proc/self/comm", "evenkeel\n"),
    (
        "proc/self/limits",
        "Limit        Soft Limit   Hard Limit   Units\nMax open files  1024  524288  files\n",
    ),
    (
        "proc/self/status",
        "Name:\tevenkeel\nCapEff:\t0000000000000000\nCpus_allowed_list:\t0-1,4\n",
    ),
    ("proc/self/environ", "HOME=/\0"),
    ("proc/self/cgroup", "0::/system.slice/evenkeel.service\n"),
    (
        "sys/fs/cgroup/system.slice/evenkeel.service/cpu.max",
        "max 100000\n",
    ),
    ("proc/meminfo", "MemTotal:       24684084 kB\n"),
    ("proc/sys/fs/nr_open", "1048576\n"),
    ("proc/sys/fs/file-max", "2466170\n"),
    ("proc/sys/fs/pipe-max-size", "1048576\n"),
    ("proc/sys/fs/pipe-user-pages-soft", "16384\n"),
    ("proc/sys/fs/pipe-user-pages-hard", "0\n"),
    ("proc/sys/net/core/somaxconn", "4096\n"),
    ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
    ("proc/sys/net/ipv4/ip_local_reserved_ports", "\n"),
    ("proc/sys/net/ipv4/tcp_mem", "287898\t383867\t575796\n"),
    ("proc/sys/net/ipv4/tcp_max_orphans", "131072\n"),
    ("proc/sys/net/ipv4/tcp_max_syn_backlog", "2048\n"),
    ("proc/sys/net/ipv4/tcp_syncookies", "1\n"),
    ("proc/sys/net/ipv4/tcp_tw_reuse", "2\n"),
    ("proc/sys/net/ipv4/tcp_congestion_control", "cubic\n"),
    ("proc/sys/net/ipv4/ip_unprivileged_port_start", "1024\n"),
    ("proc/sys/net/ipv4/conf/all/rp_filter", "0\n"),
    ("proc/sys/net/ipv4/conf/lo/rp_filter", "1\n"),
    ("proc/sys/net/ipv4/conf/eth0/rp_filter", "0\n"),
    ("proc/sys/net/ipv4/conf/eth1/rp_filter", "0\n"),
    ("proc/sys/net/netfilter/nf_conntrack_max", "262144\n"),
    ("proc/sys/net/netfilter/nf_conntrack_count", "77\n"),
];

const CONFIG: &str = "
workers: 2
max_connections: 20000
survive_restart: true
listeners:
  web: {bind: 0.0.0.0:8080, pool: web}
pools:
  web: {health: off, servers: [10.0.0.1:80]}
";

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A healthy machine but for these files.
fn machine(changes: &[(&str, &str)]) -> TempDir {
    let root = TempDir::new().unwrap();
    for (path, text) in HEALTHY.iter().chain(changes) {
        write(root.path(), path, text);
    }
    root
}

fn found_below(root: &Path, config: &str) -> Vec<Finding> {
    let config = config::read("x.yaml", config).unwrap();
    examine(&Machine::below(root, None), &config).findings
}

/// What a check says of a healthy machine but for these files.
#[track_caller]
fn finding_for(config: &str, name: &str, changes: &[(&str, &str)]) -> Finding {
    let findings = found_below(machine(changes).path(), config);
    findings.into_iter().find(|f| f.name == name).unwrap()
}

#[track_caller]
fn finding(name: &str, changes: &[(&str, &str)]) -> Finding {
    finding_for(CONFIG, name, changes)
}

/// A file of `/proc/sys` with the last value that does, and the first one that does not.
#[track_caller]
fn border(name: &str, file: &str, enough: &str, low: &str) -> Finding {
    let path = format!("proc/sys/{file}");
    let fine = finding(name, &[(&path, enough)]);
    assert_eq!(fine.status, Status::Ok, "{fine:?}");
    assert!(fine.effect.is_none() && fine.fix.is_none(), "{fine:?}");
    let fault = finding(name, &[(&path, low)]);
    assert_eq!(fault.status, Status::Low, "{fault:?}");
    assert!(fault.effect.is_some(), "{fault:?}");
    fault
}

#[track_caller]
fn assert_fix(finding: &Finding, line: &str) {
    let fix = finding.fix.as_deref().unwrap_or_default();
    assert!(fix.contains(line), "{finding:?}");
}

#[test]
fn a_healthy_machine_has_no_fault() {
    for finding in found_below(machine(&[]).path(), CONFIG) {
        assert_eq!(finding.status, Status::Ok, "{finding:?}");
    }
}

#[test]
fn every_check_names_itself_and_what_cannot_be_read_is_unknown() {
    let root = TempDir::new().unwrap();
    let findings = found_below(root.path(), CONFIG);
    let names: Vec<_> = CHECKS.iter().map(|(name, _)| *name).collect();
    let unknown: Vec<_> = findings.iter().map(|finding| finding.name).collect();
    assert_eq!(unknown, names);
    for finding in findings {
        assert_eq!(finding.status, Status::Unknown, "{finding:?}");
        assert!(finding.why.starts_with("cannot read /proc/"), "{finding:?}");
    }
    let findings = found_below(machine(&[]).path(), CONFIG);
    assert_eq!(findings.iter().map(|f| f.name).collect::<Vec<_>>(), names);
}

#[test]
fn what_makes_no_sense_is_unknown() {
    for (path, _) in HEALTHY.iter().filter(|(path, _)| path.contains("proc/sys")) {
        for text in ["", "-", "99999999999999999999999", "\u{0}\u{1b}[2J"] {
            found_below(machine(&[(path, text)]).path(), CONFIG);
        }
    }
    let finding = finding(
        "net.core.somaxconn",
        &[("proc/sys/net/core/somaxconn", "x\u{1b}")],
    );
    assert_eq!(finding.status, Status::Unknown);
    assert_eq!(
        finding.why,
        r#"/proc/sys/net/core/somaxconn says "x\u{1b}""#
    );
}

#[test]
fn the_most_severe_come_first() {
    let root = machine(&[
        ("proc/sys/net/ipv4/tcp_max_orphans", "1"),
        ("proc/sys/net/core/somaxconn", "x"),
    ]);
    let config = CONFIG.replace("8080", "80");
    let findings = found_below(root.path(), &config);
    let words: Vec<_> = findings.iter().map(|f| f.status.word()).collect();
    assert_eq!(words[..4], ["low", "wrong", "unknown", "ok"]);
}

fn limits(hard: &str) -> String {
    format!("Max open files            1024                 {hard}               files\n")
}

#[test]
fn descriptors_are_measured_as_the_start_does() {
    let name = "RLIMIT_NOFILE";
    let with = |hard: &str| finding(name, &[("proc/self/limits", &limits(hard))]);
    let needed: u64 = with("524288").needed.unwrap().parse().unwrap();
    assert!((40_000..42_000).contains(&needed), "{needed}");
    assert_eq!(with(&needed.to_string()).status, Status::Ok);
    assert_eq!(with("unlimited").status, Status::Ok);
    let low = with(&(needed - 1).to_string());
    assert_eq!(low.status, Status::Low);
    assert!(low.effect.as_deref().unwrap().contains("does not start"));
    assert_fix(&low, "LimitNOFILE=40960 ");
}

#[test]
fn nobody_needs_descriptors_that_nobody_asked_for() {
    let auto = CONFIG.replace("max_connections: 20000", "");
    let with = |config: &str| {
        let files = [("proc/self/limits", limits("1024"))];
        let files = files.each_ref().map(|(path, text)| (*path, text.as_str()));
        finding_for(config, "RLIMIT_NOFILE", &files)
    };
    assert_eq!(with(&auto).status, Status::Ok);
    let promising = auto.replace("pool: web}", "pool: web, max_connections: 5000}");
    let low = with(&promising);
    assert_eq!(low.status, Status::Low);
    assert!(low.effect.unwrap().contains("`limit`"));
    let queueing = auto.replace("health: off", "health: off, queue: {limit: 5000}");
    assert_eq!(with(&queueing).status, Status::Low);
}

#[test]
fn the_kernel_may_forbid_to_raise_the_limit() {
    let files = |most| {
        [
            ("proc/self/limits", "Max open files 1024 4096 files"),
            ("proc/sys/fs/nr_open", most),
        ]
    };
    assert_eq!(finding("fs.nr_open", &files("65536")).status, Status::Ok);
    let low = finding("fs.nr_open", &files("32768"));
    assert_eq!(low.status, Status::Low);
    assert_fix(&low, "sysctl -w fs.nr_open=40960");
    // The process has them already.
    let has = [("proc/sys/fs/nr_open", "32768")];
    assert_eq!(finding("fs.nr_open", &has).status, Status::Ok);
}

#[test]
fn the_machine_has_files_for_all_connections() {
    let low = border("fs.file-max", "fs/file-max", "65536", "40000");
    assert_fix(&low, "sysctl -w fs.file-max=");
}

const SURVIVE: &str = "survive_restart";

#[test]
fn systemd_has_room_for_what_is_kept() {
    let with = |environment: &str, config: &str| {
        finding_for(config, SURVIVE, &[("proc/self/environ", environment)])
    };
    let store = |most: u32| format!("NOTIFY_SOCKET=/run/x\0FDSTORE={most}\0");
    assert_eq!(with(&store(40_100), CONFIG).status, Status::Ok);
    let low = with(&store(40_099), CONFIG);
    assert_eq!(low.status, Status::Low);
    assert!(low.effect.as_deref().unwrap().contains(" 19999 "));
    assert_fix(&low, "FileDescriptorStoreMax=40100 in the unit");
    // It names them all in one variable.
    let many = CONFIG.replace("20000", "200000");
    assert_eq!(with(&store(60_100), &many).status, Status::Ok);
    assert_eq!(with(&store(60_099), &many).status, Status::Low);
    let silent = with("NOTIFY_SOCKET=/run/x\0", CONFIG);
    assert_eq!(silent.status, Status::Unknown);
    assert_eq!(silent.needed.as_deref(), Some("40100"));
    assert!(silent.why.contains("FileDescriptorStoreMax"), "{silent:?}");
    let odd = with("NOTIFY_SOCKET=/run/x\0FDSTORE=x\0", CONFIG);
    assert_eq!(odd.status, Status::Unknown);
}

#[test]
fn a_keeper_has_room_for_what_is_kept() {
    let with = |hard: &str, config: &str| {
        finding_for(config, SURVIVE, &[("proc/self/limits", &limits(hard))])
    };
    assert_eq!(with("40016", CONFIG).status, Status::Ok);
    let low = with("40015", CONFIG);
    assert_eq!(low.status, Status::Low);
    assert!(low.effect.as_deref().unwrap().contains(" 19999 "));
    assert_fix(&low, "ulimit -Hn 40200");
    let many = CONFIG.replace("20000", "900000");
    assert_eq!(with("unlimited", &many).status, Status::Ok);
}

#[test]
fn who_does_not_mean_to_survive_needs_no_room() {
    let config = CONFIG.replace("survive_restart: true", "");
    let off = finding_for(&config, SURVIVE, &[]);
    assert_eq!(
        (off.status, off.found.as_deref()),
        (Status::Ok, Some("off"))
    );
}

#[test]
fn each_worker_has_pipes_of_full_size() {
    let name = "fs.pipe-user-pages-soft";
    let page = crate::sys::limits::page_size();
    // 8 pipes of 1 MiB for each of two workers, which are three quarters.
    let needed = (8 << 20) / 3 * 4 * 2 / page + 1;
    let (enough, low) = (needed.to_string(), (needed - 1).to_string());
    let fault = border(name, "fs/pipe-user-pages-soft", &enough, &low);
    assert_fix(
        &fault,
        &format!("sysctl -w fs.pipe-user-pages-soft={needed}"),
    );
    let none = [("proc/sys/fs/pipe-user-pages-soft", "0")];
    assert_eq!(finding(name, &none).found.as_deref(), Some("unlimited"));
    let hard = finding(name, &[("proc/sys/fs/pipe-user-pages-hard", &low)]);
    assert_fix(&hard, &format!("fs.pipe-user-pages-hard={needed}"));
    let small = finding(name, &[("proc/sys/fs/pipe-max-size", "65536")]);
    assert_fix(&small, "fs.pipe-max-size=1048576");
    // CAP_SYS_RESOURCE is not bound by it.
    let root = format!("CapEff:\t{:016x}\nCpus_allowed_list:\t0-1\n", 1 << 24);
    let files = [
        ("proc/self/status", root.as_str()),
        ("proc/sys/fs/pipe-user-pages-soft", &low),
    ];
    assert_eq!(finding(name, &files).status, Status::Ok);
}

#[test]
fn each_worker_has_a_core() {
    let group = "sys/fs/cgroup/system.slice/evenkeel.service/cpu.max";
    let with = |quota: &str| finding("cpu", &[(group, quota)]);
    assert_eq!(with("200000 100000").status, Status::Ok);
    let low = with("150000 100000");
    assert_eq!(low.status, Status::Low);
    assert_eq!(low.found.as_deref(), Some("1.5 of 3"));
    assert_fix(&low, "CPUQuota=200% in the unit, or workers: 1");
    let crowded = finding_for(&CONFIG.replace("workers: 2", "workers: 4"), "cpu", &[]);
    assert_eq!(crowded.status, Status::Low);
    assert_fix(&crowded, "workers: 3");
    // `auto` takes what is there; half a core is no worker's.
    let auto = CONFIG.replace("workers: 2", "");
    let with = |quota: &str| finding_for(&auto, "cpu", &[(group, quota)]);
    assert_eq!(with("250000 100000").needed.as_deref(), Some("2"));
    assert_eq!(with("250000 100000").status, Status::Ok);
    assert_eq!(with("50000 100000").status, Status::Low);
}

#[test]
fn low_ports_are_for_those_who_may() {
    let with = |port: &str, status: &str, border: &str| {
        let files = [
            ("proc/self/status", status),
            ("proc/sys/net/ipv4/ip_unprivileged_port_start", border),
        ];
        finding_for(&CONFIG.replace("8080", port), "capabilities", &files)
    };
    let (may, may_not) = ("CapEff:\t0000000000000400", "CapEff:\t0000000000000000");
    assert_eq!(with("1024", may_not, "1024").status, Status::Ok);
    let wrong = with("1023", may_not, "1024");
    assert_eq!(wrong.status, Status::Wrong);
    assert_fix(&wrong, "AmbientCapabilities=CAP_NET_BIND_SERVICE");
    assert_eq!(with("1023", may, "1024").status, Status::Ok);
    assert_eq!(with("1023", may_not, "80").status, Status::Ok);
    assert_eq!(with("0", may_not, "1024").status, Status::Ok);
}

#[test]
fn the_queue_of_a_listener_fits() {
    let name = "net.core.somaxconn";
    let low = border(name, "net/core/somaxconn", "4096", "4095");
    assert_fix(&low, "sysctl -w net.core.somaxconn=4096");
    let short = CONFIG.replace("pool: web}", "pool: web, tcp: {backlog: 128}}");
    let files = [("proc/sys/net/core/somaxconn", "128")];
    assert_eq!(finding_for(&short, name, &files).status, Status::Ok);
}

#[test]
fn half_open_connections_count_without_cookies() {
    let with = |cookies, most| {
        let files = [
            ("proc/sys/net/ipv4/tcp_syncookies", cookies),
            ("proc/sys/net/ipv4/tcp_max_syn_backlog", most),
        ];
        finding("net.ipv4.tcp_max_syn_backlog", &files).status
    };
    assert_eq!(with("1", "16"), Status::Ok);
    assert_eq!(with("0", "5462"), Status::Ok);
    assert_eq!(with("0", "5461"), Status::Low);
}

#[test]
fn each_socket_has_a_page() {
    let name = "net.ipv4.tcp_mem";
    let low = border(name, "net/ipv4/tcp_mem", "1 2 40000", "1 2 39999");
    assert_fix(&low, "sysctl -w net.ipv4.tcp_mem=\"30000 40000 60000\"");
    let small = finding(
        name,
        &[
            ("proc/sys/net/ipv4/tcp_mem", "1 2 3"),
            ("proc/meminfo", "MemTotal: 65536 kB"),
        ],
    );
    assert_fix(&small, "max_connections: ");
}

#[test]
fn a_quarter_may_be_orphans() {
    let name = "net.ipv4.tcp_max_orphans";
    let low = border(name, "net/ipv4/tcp_max_orphans", "5000", "4999");
    assert_fix(&low, "sysctl -w net.ipv4.tcp_max_orphans=5000");
}

const RANGE: &str = "net.ipv4.ip_local_port_range";

/// With a range of ports, and the servers and sources of the pool.
fn ports(range: &str, pool: &str) -> Finding {
    let config = CONFIG.replace("servers: [10.0.0.1:80]", pool);
    let files = [("proc/sys/net/ipv4/ip_local_port_range", range)];
    finding_for(&config, RANGE, &files)
}

#[test]
fn each_pair_of_source_and_server_has_its_ports() {
    let low = border(
        RANGE,
        "net/ipv4/ip_local_port_range",
        "40000 59999",
        "40000 59998",
    );
    assert_fix(&low, "ip_local_port_range=\"10240 65535\"");
    assert!(low.effect.unwrap().contains("beyond 19999 connections"));
    for pool in [
        "servers: [10.0.0.1:80, 10.0.0.2:80]",
        "source: [10.0.0.8, 10.0.0.9], servers: [10.0.0.1:80]",
    ] {
        assert_eq!(ports("40000 49999", pool).status, Status::Ok, "{pool}");
        assert_eq!(ports("40000 49998", pool).status, Status::Low, "{pool}");
    }
    // A source of the other family, a backup and a server without weight are of no use.
    for pool in [
        "source: [10.0.0.9, \"fd00::1\"], servers: [10.0.0.1:80]",
        "servers: [10.0.0.1:80, {address: 10.0.0.2:80, backup: true}]",
        "servers: [10.0.0.1:80, {address: 10.0.0.2:80, weight: 0}]",
    ] {
        assert_eq!(ports("40000 49999", pool).status, Status::Low, "{pool}");
    }
}

#[test]
fn ports_are_needed_only_for_what_servers_take() {
    for pool in [
        "servers: [{address: 10.0.0.1:80, max_connections: 100}]",
        "servers: [\"unix:/run/a\"]",
    ] {
        assert_eq!(ports("40000 40099", pool).status, Status::Ok, "{pool}");
    }
    let pool = "servers: [{address: 10.0.0.1:80, max_connections: 101}]";
    assert_eq!(ports("40000 40099", pool).status, Status::Low);
    let looked_up = ports("40000 40099", "servers: [10.0.0.1:80, db.example.com:80]");
    assert_eq!(looked_up.status, Status::Unknown);
    assert!(looked_up.why.contains("200 pairs"), "{looked_up:?}");
}

#[test]
fn what_no_range_can_give_needs_sources() {
    let config = CONFIG.replace("20000", "200000");
    let low = finding_for(&config, RANGE, &[]);
    assert_fix(&low, "source: [...] of pool web with 4 addresses");
}

#[test]
fn reserved_ports_are_not_taken_by_connects() {
    let name = "net.ipv4.ip_local_reserved_ports";
    let config = CONFIG.replace(
        "0.0.0.0:8080",
        "[\"0.0.0.0:40000-40002\", \"0.0.0.0:8080\"]",
    );
    let with = |kept: &str| {
        let files = [("proc/sys/net/ipv4/ip_local_reserved_ports", kept)];
        finding_for(&config, name, &files)
    };
    let wrong = with("50000");
    assert_eq!(wrong.status, Status::Wrong);
    assert_fix(&wrong, "ip_local_reserved_ports=40000-40002,50000");
    assert_eq!(with("39000-40002").status, Status::Ok);
    assert_eq!(with("40000-40001").needed.as_deref(), Some("40002"));
    // Those that are kept are no one's.
    let files = [
        ("proc/sys/net/ipv4/ip_local_port_range", "40000 60000"),
        (
            "proc/sys/net/ipv4/ip_local_reserved_ports",
            "39990-40000,60000",
        ),
    ];
    assert_eq!(finding(RANGE, &files).found.as_deref(), Some("19999"));
}

#[test]
fn conntrack_counts_where_it_is_active() {
    let name = "net.netfilter.nf_conntrack_max";
    let low = border(name, "net/netfilter/nf_conntrack_max", "40000", "39999");
    assert_fix(&low, "sysctl -w net.netfilter.nf_conntrack_max=40000");
    let idle = [
        ("proc/sys/net/netfilter/nf_conntrack_max", "10"),
        ("proc/sys/net/netfilter/nf_conntrack_count", "0"),
    ];
    assert_eq!(finding(name, &idle).status, Status::Ok);
    let root = machine(&[]);
    fs::remove_dir_all(root.path().join("proc/sys/net/netfilter")).unwrap();
    let findings = found_below(root.path(), CONFIG);
    let absent = findings.iter().find(|finding| finding.name == name);
    assert_eq!(absent.unwrap().status, Status::Ok);
}

#[test]
fn strict_filters_matter_to_sources() {
    let name = "net.ipv4.conf.*.rp_filter";
    let strict = [("proc/sys/net/ipv4/conf/eth0/rp_filter", "1")];
    assert_eq!(finding(name, &strict).status, Status::Ok);
    let config = CONFIG.replace("health: off", "health: off, source: [10.0.0.9]");
    let wrong = finding_for(&config, name, &strict);
    assert_eq!(wrong.status, Status::Wrong);
    assert_eq!(wrong.found.as_deref(), Some("strict at eth0"));
    assert_fix(&wrong, "sysctl -w net.ipv4.conf.all.rp_filter=2");
    // The larger one of `all` and the interface's counts.
    let all = |value| ("proc/sys/net/ipv4/conf/all/rp_filter", value);
    let loose = [strict[0], all("2")];
    assert_eq!(finding_for(&config, name, &loose).status, Status::Ok);
    assert_eq!(
        finding_for(&config, name, &[all("1")]).status,
        Status::Wrong
    );
}

#[test]
fn information_is_no_fault() {
    let remote = finding("net.ipv4.tcp_tw_reuse", &[]);
    assert!(remote.why.contains("60 s"), "{remote:?}");
    let soon = finding(
        "net.ipv4.tcp_tw_reuse",
        &[("proc/sys/net/ipv4/tcp_tw_reuse", "1")],
    );
    assert!(!soon.why.contains("60 s"), "{soon:?}");
    let bbr = [("proc/sys/net/ipv4/tcp_congestion_control", "bbr")];
    let name = "net.ipv4.tcp_congestion_control";
    assert!(finding(name, &bbr).why.contains("lose"));
    let local = CONFIG
        .replace("0.0.0.0", "127.0.0.1")
        .replace("10.0.0.1", "127.0.0.1");
    let paced = finding_for(&local, name, &bbr);
    assert_eq!(paced.status, Status::Ok);
    assert!(paced.why.contains("paces"), "{paced:?}");
}

#[test]
fn the_limits_of_the_process_that_runs_count() {
    let root = machine(&[
        ("proc/7/comm", "evenkeel\n"),
        ("proc/7/limits", "Max open files 1024 4096 files\n"),
        ("proc/7/status", HEALTHY[2].1),
        ("proc/8/comm", "systemd\n"),
    ]);
    let limit = |number| {
        let machine = Machine::below(root.path(), number);
        (machine.process(), machine.descriptors().unwrap())
    };
    assert_eq!(limit(Some(7)), (Some(7), 4096));
    assert_eq!(limit(None), (None, 524_288));
    // Somebody else has the number that it has in its container, or nobody.
    assert_eq!(limit(Some(8)), (None, 524_288));
    assert_eq!(limit(Some(9)), (None, 524_288));
}
