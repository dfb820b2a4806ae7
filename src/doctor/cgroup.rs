//! How much time on the cores a process gets: the quota of its cgroup and of all above it, in the
//! unified hierarchy (`cpu.max`) and in the older one (`cpu.cfs_quota_us`).
//!
//! Pure: files come from the caller. Where a container shows the group's path of the host, the files
//! are at the top of what it sees, so every group up to there is tried and those missing are skipped.

/// Where the unified hierarchy may stand below `/sys/fs/cgroup`: alone, or beside the older ones.
const UNIFIED: [&str; 2] = ["", "unified"];

/// The least quota in cores; `None` where no group has one. `groups` is `/proc/PID/cgroup`, and `read`
/// gives a file below `/sys/fs/cgroup`.
pub(super) fn quota(groups: &str, read: impl Fn(&str) -> Option<String>) -> Option<f64> {
    let mut least: Option<f64> = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(kinds), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        for group in upwards(path) {
            let found = match kinds {
                "" => unified(group, &read),
                _ if kinds.split(',').any(|kind| kind == "cpu") => older(kinds, group, &read),
                _ => None,
            };
            least = [least, found].into_iter().flatten().reduce(f64::min);
        }
    }
    least
}

/// A group and all above it: `/a/b`, `/a` and the root, which is empty.
fn upwards(path: &str) -> impl Iterator<Item = &str> {
    let first = Some(path.trim_end_matches('/'));
    std::iter::successors(first, |group| group.rfind('/').map(|end| &group[..end]))
}

fn unified(group: &str, read: &impl Fn(&str) -> Option<String>) -> Option<f64> {
    let files = UNIFIED.map(|place| format!("{place}{group}/cpu.max"));
    let text = files
        .iter()
        .find_map(|file| read(file.trim_start_matches('/')))?;
    let (quota, period) = text.trim().split_once(' ')?;
    // `max` is no number, and no bound.
    cores(quota.parse().ok()?, period.parse().ok()?)
}

fn older(kinds: &str, group: &str, read: &impl Fn(&str) -> Option<String>) -> Option<f64> {
    // The folder may have the names of all kinds in one, or only this one.
    let number = |name: &str| {
        let text = read(&format!("{kinds}{group}/{name}"))
            .or_else(|| read(&format!("cpu{group}/{name}")))?;
        text.trim().parse().ok()
    };
    cores(number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?)
}

/// -1 is no bound in the older files.
fn cores(quota: f64, period: f64) -> Option<f64> {
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota_with(groups: &str, files: &[(&str, &str)]) -> Option<f64> {
        quota(groups, |path| {
            let found = files.iter().find(|(name, _)| *name == path);
            found.map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn the_narrowest_group_on_the_way_up_counts() {
        let files = [
            ("a/b/cpu.max", "max 100000\n"),
            ("a/cpu.max", "150000 100000\n"),
            ("cpu.max", "400000 100000\n"),
        ];
        assert_eq!(quota_with("0::/a/b\n", &files), Some(1.5));
        assert_eq!(quota_with("0::/\n", &files), Some(4.0));
        assert_eq!(quota_with("0::/a/b\n", &files[..1]), None);
    }

    #[test]
    fn a_container_finds_its_quota_at_the_top() {
        let files = [("cpu.max", "50000 100000")];
        assert_eq!(quota_with("0::/system.slice/x", &files), Some(0.5));
    }

    #[test]
    fn the_older_hierarchy_is_read_by_either_name() {
        let groups = "5:memory:/m\n4:cpu,cpuacct:/g\n";
        for folder in ["cpu,cpuacct", "cpu"] {
            let names = ["quota", "period"].map(|name| format!("{folder}/g/cpu.cfs_{name}_us"));
            let with = |quota| quota_with(groups, &[(&names[0], quota), (&names[1], "100000")]);
            assert_eq!(with("200000"), Some(2.0));
            assert_eq!(with("-1"), None);
        }
    }

    #[test]
    fn what_is_no_group_and_no_number_is_passed_over() {
        let files = [("cpu.max", "lots of it")];
        for groups in ["", "x", "0::", "::", "0::/\u{0}"] {
            assert_eq!(quota_with(groups, &files), None, "{groups}");
        }
        assert_eq!(quota_with("0::/", &[("cpu.max", "100 0")]), None);
    }
}
