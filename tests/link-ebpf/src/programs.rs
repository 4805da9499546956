//! The two programs: at the link's egress, and where held packets come back.

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::generated::bpf_redirect,
    macros::classifier,
    programs::TcContext,
};

use crate::{
    fate::{Fate, draw},
    maps::{Count, Setting, count, setting},
    packet::{is_meant, is_tcp},
};

/// `skb->mark` of packets whose fate was drawn already: second copies, and held ones.
const DRAWN: u32 = 0x10_55_11_4e;

/// No device has this number. What is redirected there is lost, and its sender told that it was
/// sent (`sch_handle_egress`): `TC_ACT_SHOT` would tell a sender on this machine the truth, and its
/// TCP would send again at once.
const NOWHERE: u32 = i32::MAX as u32;

/// At the egress of the link.
#[classifier]
pub fn lossy(skb: TcContext) -> i32 {
    // SAFETY: the context is the kernel's, and `mark` one of the fields that may be read.
    if unsafe { (*skb.skb.skb).mark } == DRAWN {
        skb.set_mark(0);
        return TC_ACT_UNSPEC;
    }
    if !is_meant(&skb) {
        return TC_ACT_UNSPEC;
    }
    match draw(count(Count::Seen)) {
        Fate::Pass => pass(),
        Fate::Drop => lose(),
        Fate::Duplicate => duplicate(&skb),
        Fate::Hold => hold(),
    }
}

#[inline(always)]
fn pass() -> i32 {
    count(Count::Passed);
    TC_ACT_UNSPEC
}

#[inline(always)]
fn lose() -> i32 {
    count(Count::Dropped);
    redirect(NOWHERE)
}

#[inline(always)]
fn duplicate(skb: &TcContext) -> i32 {
    skb.set_mark(DRAWN);
    if skb.clone_redirect(setting(Setting::Link) as u32, 0).is_ok() {
        count(Count::Duplicated);
    }
    skb.set_mark(0);
    pass()
}

#[inline(always)]
fn hold() -> i32 {
    let line = setting(Setting::Line) as u32;
    if line == 0 {
        return pass();
    }
    count(Count::Held);
    redirect(line)
}

/// At the ingress of the delay line's device: what was held goes out on the link.
#[classifier]
pub fn returned(skb: TcContext) -> i32 {
    // Nothing else has any business here.
    if !is_tcp(&skb) {
        return TC_ACT_SHOT;
    }
    count(Count::Returned);
    skb.set_mark(DRAWN);
    redirect(setting(Setting::Link) as u32)
}

#[inline(always)]
fn redirect(device: u32) -> i32 {
    // SAFETY: a helper without pointers.
    unsafe { bpf_redirect(device, 0) as i32 }
}
