//! What only the inside can show of the C ABI: that a panic in any export is caught.

use std::ptr::{null, null_mut};

use super::{guard::tests::panic_in_next_call, *};
use crate::error::{SSS_E_PANIC, SSS_OK};

type Call = Box<dyn Fn(sss_store) -> sss_status>;

/// Every exported function that returns a status, called with arguments that it would take.
fn every_status_function() -> Vec<(&'static str, Call)> {
    let id = || [b'A'; SSS_SID_LEN].as_ptr().cast::<std::ffi::c_char>();
    macro_rules! calls {
        ($($name:ident |$store:pat_param| ($($argument:expr),*);)*) => {
            vec![$((
                stringify!($name),
                // SAFETY: all pointers are NULL or point to enough bytes.
                Box::new(move |$store: sss_store| unsafe { $name($($argument),*) }) as Call,
            )),*]
        };
    }
    let url = c"memory:".as_ptr();
    let principal = c"alice".as_ptr().cast();
    let reference = || [0_u8; SSS_REF_LEN].as_mut_ptr();
    calls! {
        sss_open |_| (url, 7, &mut 0);
        sss_open_global |_| (url, 7);
        sss_close |store| (store);
        sss_may_block |store| (store, &mut 0);
        sss_create |store| (store, null(), 0, null(), [0; SSS_SID_SIZE].as_mut_ptr(), null_mut());
        sss_get |store| (store, id(), SSS_SID_LEN, 0, null_mut(), 0, null_mut(), null_mut());
        sss_get_buf |store| (store, id(), SSS_SID_LEN, 0, &mut sss_buf { data: null(), len: 0, owner: null_mut() }, null_mut());
        sss_put |store| (store, id(), SSS_SID_LEN, null(), 0, null(), null_mut());
        sss_put_if |store| (store, id(), SSS_SID_LEN, 1, null(), 0, null(), null_mut());
        sss_touch |store| (store, id(), SSS_SID_LEN, null_mut());
        sss_renew |store| (store, id(), SSS_SID_LEN, null(), 0, null(), [0; SSS_SID_SIZE].as_mut_ptr(), null_mut());
        sss_delete |store| (store, id(), SSS_SID_LEN);
        sss_sweep |store| (store, 1, null_mut());
        sss_list |store| (store, principal, 5, null_mut(), 0, null_mut());
        sss_revoke |store| (store, principal, 5, null(), 0, null_mut());
        sss_ref |store| (store, id(), SSS_SID_LEN, reference());
        sss_delete_ref |store| (store, reference(), null(), 0);
        sss_touch_ref |store| (store, reference(), 0, null_mut());
        sss_revoke_all |store| (store, null_mut());
        sss_stats |store| (store, &mut (&crate::Stats::default()).into());
        sss_advance_clock |store| (store, 1);
        sss_last_error |_| (null_mut(), 0, null_mut());
    }
}

#[test]
fn a_panic_inside_any_export_is_a_status_and_the_store_lives_on() {
    let mut store = 0;
    // SAFETY: seven bytes of URL.
    assert_eq!(unsafe { sss_open(c"memory:".as_ptr(), 7, &mut store) }, SSS_OK);
    for (name, call) in every_status_function() {
        panic_in_next_call();
        assert_eq!(call(store), SSS_E_PANIC, "{name}");
        assert_ne!(call(0), SSS_E_PANIC, "{name} panics without being asked to");
    }
    // SAFETY: the handle is open, an id has 129 bytes.
    assert_eq!(unsafe { sss_create(store, null(), 0, null(), [0; SSS_SID_SIZE].as_mut_ptr(), null_mut()) }, SSS_OK);
    // SAFETY: the handle is open.
    assert_eq!(unsafe { sss_close(store) }, SSS_OK);
}

#[test]
fn a_panic_inside_an_export_without_a_status_is_caught_too() {
    panic_in_next_call();
    // SAFETY: NULL is allowed.
    unsafe { sss_buf_free(null_mut()) };
    panic_in_next_call();
    assert!(!sss_strerror(0).is_null());
    panic_in_next_call();
    assert_eq!(sss_version() >> 16, 0);
    panic_in_next_call();
    assert!(!sss_version_string().is_null());
}

#[test]
fn the_list_of_exports_above_is_complete() {
    let listed = every_status_function().into_iter().map(|(name, _)| name);
    let mut listed: Vec<_> =
        listed.chain(["sss_buf_free", "sss_strerror", "sss_version", "sss_version_string"]).collect();
    listed.sort_unstable();
    let exported: Vec<_> =
        include_str!("../../tests/exports.txt").lines().filter(|line| line.starts_with("sss_")).collect();
    assert_eq!(listed, exported);
}
