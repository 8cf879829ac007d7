//! The filter of system calls: what a training has no use for and an attack on the kernel does.
//!
//! Layer 3 (effects). A list of what is refused, with `EPERM`, as a training may use anything else: what the box
//! promises rests on namespaces, mounts and dropped rights, and this makes the kernel's surface smaller. `clone3`
//! is answered with `ENOSYS`, since its flags cannot be seen; the C library falls back to `clone`.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, apply_filter,
};

/// Mounts and roots, other processes, keys, modules, tracing, time, swap, namespaces and interfaces with a past.
const REFUSED: &[libc::c_long] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fsconfig,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_fanotify_init,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
];

/// Flags of `clone` that make namespaces.
const NAMESPACES: libc::c_int = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

/// Terminal ioctls by which a process types into its terminal.
const TYPING: [u64; 2] = [libc::TIOCSTI, 0x541C];

/// Families of sockets that stay: local ones, the loopback's, and netlink by which libraries list interfaces.
const SOCKETS: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// On x86-64 a call can also be made by its number in the x32 table.
const X32: i64 = 0x4000_0000;

/// Filters this thread's calls from now on, for good.
pub(super) fn apply() -> Result<(), String> {
    let show = |error: &dyn std::fmt::Display| error.to_string();
    for program in programs()? {
        apply_filter(&program).map_err(|error| show(&error))?;
    }
    Ok(())
}

fn programs() -> Result<Vec<BpfProgram>, String> {
    let show = |error: seccompiler::BackendError| error.to_string();
    let arch = std::env::consts::ARCH.try_into().map_err(show)?;
    let build = |rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32| -> Result<BpfProgram, String> {
        let rules = rules.into_iter().flat_map(|(call, rules)| [(call, rules.clone()), (call | X32, rules)]).collect();
        let answer = SeccompAction::Errno(errno as u32);
        SeccompFilter::new(rules, SeccompAction::Allow, answer, arch).and_then(TryInto::try_into).map_err(show)
    };
    let when = |conditions: Vec<SeccompCondition>| SeccompRule::new(conditions).map_err(show);
    let is = |argument: u8, length, op, value| SeccompCondition::new(argument, length, op, value).map_err(show);
    let mut refused: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let mut clone = Vec::new();
    for bit in (0..32).map(|bit| 1u64 << bit).filter(|bit| NAMESPACES as u32 as u64 & bit != 0) {
        clone.push(when(vec![is(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(bit), bit)?])?);
    }
    refused.insert(libc::SYS_clone, clone);
    let mut typing = Vec::new();
    for request in TYPING {
        typing.push(when(vec![is(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, request)?])?);
    }
    refused.insert(libc::SYS_ioctl, typing);
    let mut family = Vec::new();
    for known in SOCKETS {
        family.push(is(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, known as u64)?);
    }
    let family = BTreeMap::from([(libc::SYS_socket, vec![when(family)?])]);
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    Ok(vec![build(refused, libc::EPERM)?, build(family, libc::EAFNOSUPPORT)?, build(clone3, libc::ENOSYS)?])
}
