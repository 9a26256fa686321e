// SPDX-License-Identifier: GPL-2.0-only
//! What the processes beside the scheduler may still do once they have what they need. They stay root's,
//! with few capabilities, and may read; they may not write files, start programs, or reach other machines.
//!
//! No Landlock: a process in a Landlock domain may not look at `/proc` of one outside of it, whatever its
//! capabilities, and there would be no names.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use caps::{CapSet, Capability, CapsHashSet};
use libc::{c_long, c_ulong};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// What names take: to look at any process's mappings, and at what is mapped there, whoever may read it; to
/// see the kernel's symbols.
pub const NAMING: [Capability; 4] = [
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_CHECKPOINT_RESTORE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_SYSLOG,
];

/// Gives all capabilities up but these, for this thread and those that it starts.
///
/// # Errors
/// What the kernel said.
pub fn keep_capabilities(keep: &[Capability]) -> Result<()> {
    let had = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = keep
        .iter()
        .copied()
        .filter(|cap| had.contains(cap))
        .collect();
    // first what takes a capability itself
    if had.contains(&Capability::CAP_SETPCAP) {
        for cap in caps::all() {
            if !kept.contains(&cap) {
                // one that this kernel does not know
                let _ = caps::drop(None, CapSet::Bounding, cap);
            }
        }
    }
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    Ok(())
}

/// Calls that neither reading files nor answering on a socket takes.
const FORBIDDEN: &[c_long] = &[
    // programs and processes
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pidfd_getfd,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    // the kernel
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    // mounts and namespaces
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    // files
    libc::SYS_creat,
    libc::SYS_openat2,
    libc::SYS_open_by_handle_at,
    libc::SYS_truncate,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_link,
    libc::SYS_linkat,
    libc::SYS_symlink,
    libc::SYS_symlinkat,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_rmdir,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_mknod,
    libc::SYS_mknodat,
    libc::SYS_chmod,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_chown,
    libc::SYS_fchown,
    libc::SYS_lchown,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    libc::SYS_utimensat,
    libc::SYS_utimes,
    libc::SYS_utime,
];

fn condition(arg: u8, op: SeccompCmpOp, value: c_ulong) -> Result<SeccompRule> {
    let condition = SeccompCondition::new(arg, SeccompCmpArgLen::Dword, op, value)?;
    Ok(SeccompRule::new(vec![condition])?)
}

/// Opening for anything but reading: argument `arg` holds the flags.
fn writing(arg: u8) -> Result<Vec<SeccompRule>> {
    let bits = |mask: i32, value: i32| {
        let mask = SeccompCmpOp::MaskedEq(u64::from(mask.unsigned_abs()));
        condition(arg, mask, u64::from(value.unsigned_abs()))
    };
    Ok(vec![
        bits(libc::O_ACCMODE, libc::O_WRONLY)?,
        bits(libc::O_ACCMODE, libc::O_RDWR)?,
        bits(libc::O_ACCMODE, libc::O_ACCMODE)?,
        bits(libc::O_CREAT, libc::O_CREAT)?,
        bits(libc::O_TRUNC, libc::O_TRUNC)?,
    ])
}

fn filter() -> Result<BpfProgram> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        FORBIDDEN.iter().map(|call| (*call, Vec::new())).collect();
    rules.insert(libc::SYS_open, writing(1)?);
    rules.insert(libc::SYS_openat, writing(2)?);
    let other_sockets = condition(0, SeccompCmpOp::Ne, libc::AF_UNIX as c_ulong)?;
    rules.insert(libc::SYS_socket, vec![other_sockets]);
    // whoever has the terminal would find in it what this process typed
    let type_in = |call| condition(1, SeccompCmpOp::Eq, call);
    rules.insert(
        libc::SYS_ioctl,
        vec![type_in(libc::TIOCSTI)?, type_in(TIOCLINUX)?],
    );
    let forbid = SeccompAction::Errno(libc::EPERM as u32);
    let arch = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, forbid, arch)?;
    Ok(filter.try_into()?)
}

const TIOCLINUX: c_ulong = 0x541c;

/// From here on all threads may only read files, and speak on sockets of this machine.
///
/// # Errors
/// The kernel has no seccomp.
pub fn only_read() -> Result<()> {
    seccompiler::apply_filter_all_threads(&filter()?).context("seccomp")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::process::Command;

    /// A filter, and capabilities, are a thread's own: the test's other threads go on as before.
    #[test]
    fn a_confined_thread_reads_and_does_nothing_else() {
        let path = std::env::temp_dir().join(format!("scxp-confine-{}", std::process::id()));
        std::fs::write(&path, "text").expect("a file");
        let confined = path.clone();
        let thread = std::thread::spawn(move || {
            keep_capabilities(&[Capability::CAP_SYS_PTRACE]).expect("fewer capabilities");
            let left = caps::read(None, CapSet::Effective).expect("capabilities");
            assert!(left.len() <= 1 && !left.contains(&Capability::CAP_SYS_ADMIN));
            seccompiler::apply_filter(&filter().expect("a filter")).expect("seccomp");
            assert_eq!(std::fs::read_to_string(&confined).expect("read"), "text");
            let forbidden = |what: &str, error: Option<std::io::Error>| {
                let error = error.unwrap_or_else(|| panic!("{what} is allowed"));
                assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{what}: {error}");
            };
            forbidden(
                "to create",
                File::create(confined.with_extension("x")).err(),
            );
            forbidden(
                "to write",
                File::options().append(true).open(&confined).err(),
            );
            forbidden("to remove", std::fs::remove_file(&confined).err());
            forbidden("a program", Command::new("/bin/true").status().err());
            forbidden("a port", std::net::TcpListener::bind("127.0.0.1:0").err());
            std::os::unix::net::UnixStream::pair().expect("a pair");
        });
        thread.join().expect("confined");
        let left = std::fs::remove_file(&path);
        left.expect("the file is still there");
    }
}
