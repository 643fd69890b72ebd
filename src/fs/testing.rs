//! What tests of permissions need: to root nothing is forbidden.

use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// `nobody`, who owns nothing.
pub(crate) const SOMEBODY_ELSE: u32 = 65534;

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs `test` as an ordinary user: on a thread of its own that gave up root, or as it is.
pub(crate) fn as_ordinary_user(test: impl FnOnce() + Send) {
    if !is_root() {
        return test();
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let uid = rustix::process::Uid::from_raw(SOMEBODY_ELSE);
            let gid = rustix::process::Gid::from_raw(SOMEBODY_ELSE);
            set_thread_groups(&[]).unwrap();
            set_thread_res_gid(gid, gid, gid).unwrap();
            set_thread_res_uid(uid, uid, uid).unwrap();
            test();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}
