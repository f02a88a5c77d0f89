//! Where groups may be made: what is mounted, and where in it this process is.

use std::path::{Path, PathBuf};

use super::{CgroupError, Controller, Version, read};

/// A group below which ours can be tried.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) version: Version,
    pub(super) path: PathBuf,
    pub(super) controllers: Vec<Controller>,
}

/// Every place that has one of the controllers, the best first: version 2 in the process's own
/// group, then in the one above it (a group of version 2 that has processes hands nothing on, so
/// the host's own is fit only if it is the root), then version 1.
pub(super) fn places(wanted: &[Controller]) -> Result<Vec<Place>, CgroupError> {
    let mounts = read(Path::new("/proc/self/mountinfo"))?;
    let membership = read(Path::new("/proc/self/cgroup"))?;
    let mut places = Vec::new();
    for mount in mounts.lines().filter_map(Mount::parse) {
        let Some(own) = mount.folder_of(&membership) else { continue };
        match mount.version {
            Version::One => places.push(Place {
                version: Version::One,
                path: own,
                controllers: known(wanted, mount.options.split(',')),
            }),
            Version::Two => {
                let above = own.parent().filter(|above| above.starts_with(&mount.point));
                for path in above.into_iter().chain([own.as_path()]) {
                    let there = read(&path.join("cgroup.controllers"))?;
                    places.push(Place {
                        version: Version::Two,
                        path: path.to_owned(),
                        controllers: known(wanted, there.split_ascii_whitespace()),
                    });
                }
            }
        }
    }
    places.retain(|place| !place.controllers.is_empty());
    places.sort_by_key(|place| match place.version {
        Version::Two => 0,
        Version::One => 1,
    });
    Ok(places)
}

fn known<'a>(wanted: &[Controller], names: impl Iterator<Item = &'a str>) -> Vec<Controller> {
    let find = |name: &str| wanted.iter().copied().find(|it| it.as_str() == name);
    names.filter_map(find).collect()
}

/// One mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    version: Version,
    /// The group that is seen at the mount point.
    root: PathBuf,
    point: PathBuf,
    options: String,
}

impl Mount {
    /// A line of `mountinfo`, if it is of a control group.
    fn parse(line: &str) -> Option<Self> {
        let (mount, system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, point) = (mount.next()?, mount.next()?);
        let mut system = system.split(' ');
        let version = match system.next()? {
            "cgroup" => Version::One,
            "cgroup2" => Version::Two,
            _ => return None,
        };
        Some(Self {
            version,
            root: PathBuf::from(root),
            point: PathBuf::from(point),
            options: system.nth(1)?.to_owned(),
        })
    }

    /// The folder of this process's group, by the lines of its `cgroup` file, if it can be reached.
    fn folder_of(&self, membership: &str) -> Option<PathBuf> {
        let path = membership.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let is_it = match self.version {
                Version::Two => controllers.is_empty(),
                Version::One => {
                    !controllers.is_empty()
                        && controllers
                            .split(',')
                            .all(|it| self.options.split(',').any(|own| own == it))
                }
            };
            is_it.then_some(path)
        })?;
        let below = Path::new(path).strip_prefix(&self.root).ok()?;
        // A group that lies outside of a cgroup namespace is shown with a path that climbs.
        let climbs = below.components().any(|part| part.as_os_str() == "..");
        (!climbs).then(|| self.point.join(below))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory";
    const V2: &str =
        "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";

    #[test]
    fn the_group_of_a_process_is_found() {
        let one = Mount::parse(V1).unwrap();
        let two = Mount::parse(V2).unwrap();
        let membership = "4:memory:/a/b\n1:cpu,cpuacct:/\n0::/user.slice/x.scope\n";
        assert_eq!(one.folder_of(membership).unwrap(), Path::new("/sys/fs/cgroup/memory/a/b"));
        assert_eq!(
            two.folder_of(membership).unwrap(),
            Path::new("/sys/fs/cgroup/user.slice/x.scope")
        );
        assert_eq!(one.folder_of("0::/x\n"), None);
    }

    #[test]
    fn a_mount_of_a_part_shows_that_part() {
        let line = V2.replace(" / /sys", " /user.slice /sys");
        let mount = Mount::parse(&line).unwrap();
        assert_eq!(
            mount.folder_of("0::/user.slice/x.scope").unwrap(),
            Path::new("/sys/fs/cgroup/x.scope")
        );
        assert_eq!(mount.folder_of("0::/system.slice"), None);
        assert_eq!(Mount::parse(V2).unwrap().folder_of("0::/../../outside"), None);
    }

    #[test]
    fn controllers_that_share_a_mount_are_told_by_the_options() {
        let line = V1.replace("rw,memory", "rw,cpu,cpuacct");
        let mount = Mount::parse(&line).unwrap();
        let membership = "4:memory:/m\n1:cpu,cpuacct:/c\n";
        assert_eq!(mount.folder_of(membership).unwrap(), Path::new("/sys/fs/cgroup/memory/c"));
    }

    #[test]
    fn other_mounts_are_none() {
        assert_eq!(Mount::parse("31 23 0:28 / /x rw - tmpfs tmpfs rw"), None);
        assert_eq!(Mount::parse("nonsense"), None);
    }
}
