//! Where a replica may lie: on a disk of this machine.
//!
//! Over a network file system a lock may hold on one machine only, and fsync may come back before the bytes
//! are anywhere: both are what a replica rests on.

use super::open::folder_of;
use crate::error::{Error, Result};
use std::path::Path;

/// Network file systems by the number that `statfs(2)` tells.
const NETWORK: [(u64, &str); 9] = [
    (0x6969, "NFS"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB"),
    (0x517B, "SMB"),
    (0x0102_1997, "9p"),
    (0x00C3_6400, "Ceph"),
    (0x5346_414F, "AFS"),
    (0x0BD0_0BD0, "Lustre"),
    (0x7375_7245, "Coda"),
];

fn network(kind: u64) -> Option<&'static str> {
    // Some kernels fill the upper half with the sign.
    NETWORK.iter().find(|(number, _)| *number == kind & 0xFFFF_FFFF).map(|(_, name)| *name)
}

/// # Errors
/// `Usage` for a file, or a folder to make one in, on a network file system.
pub(super) fn refuse_network(path: &Path) -> Result<()> {
    match kind_of(path).or_else(|| kind_of(folder_of(path))).and_then(network) {
        None => Ok(()),
        Some(name) => Err(Error::usage(format!(
            "replica {}: lies on a network file system ({name}), where neither locks nor fsync can be relied on; \
             give a file on a local disk",
            path.display()
        ))),
    }
}

#[cfg(target_os = "linux")]
#[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)]
fn kind_of(path: &Path) -> Option<u64> {
    if crate::fault::on_nfs() {
        return Some(0x6969);
    }
    rustix::fs::statfs(path).ok().map(|s| s.f_type as u64)
}

#[cfg(not(target_os = "linux"))]
fn kind_of(_: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_their_numbers_and_local_ones_are_not_taken_for_them() {
        assert_eq!(network(0x6969), Some("NFS"));
        assert_eq!(network(0xFFFF_FFFF_FF53_4D42), Some("CIFS"));
        assert_eq!(network(0x0102_1997), Some("9p"));
        // ext4, XFS, btrfs, tmpfs, overlay, ZFS, FUSE (which may well be local).
        for local in [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994, 0x794C_7630, 0x2FC1_2FC1, 0x6573_5546] {
            assert_eq!(network(local), None, "{local:x}");
        }
    }
}
