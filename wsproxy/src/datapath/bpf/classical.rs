//! The packet path's program as a classical filter, on kernels without tcx (before Linux 6.6): a
//! filter of the queueing discipline `clsact`, which a device has once, for everybody.

use std::io;

use aya::programs::tc::SchedClassifierLink;

use crate::datapath::packet::netlink::Questions;

/// `RTM_DELQDISC`, `RTM_NEWTFILTER`, `RTM_GETTFILTER` (`include/uapi/linux/rtnetlink.h`).
const DELETE_DISCIPLINE: u16 = 37;
const FILTER: u16 = 44;
const LIST_FILTERS: u16 = 46;
/// `NLM_F_ACK`, and `NLM_F_DUMP` (`include/uapi/linux/netlink.h`).
const ACKNOWLEDGE: u16 = 0x4;
const LIST: u16 = 0x300;
/// The discipline's handle and parent, and the parents of its filters: `TC_H_CLSACT` with
/// `TC_H_MIN_INGRESS` and `TC_H_MIN_EGRESS` (`include/uapi/linux/pkt_sched.h`).
const HANDLE: u32 = 0xffff_0000;
const PARENT: u32 = 0xffff_fff1;
const PLACES: [u32; 2] = [0xffff_fff2, 0xffff_fff3];

/// A filter of ours. Taken out when dropped, and the discipline with it if that is ours and holds
/// nobody else's filters.
#[derive(Debug)]
pub(super) struct Classical {
    link: Option<SchedClassifierLink>,
    device: u32,
    /// Whether the device had no such discipline before.
    made: bool,
}

impl Classical {
    pub(super) fn new(link: SchedClassifierLink, device: u32, made: bool) -> Self {
        Self { link: Some(link), device, made }
    }
}

impl Drop for Classical {
    fn drop(&mut self) {
        // Its end is what takes the filter out.
        drop(self.link.take());
        if self.made
            && let Err(error) = remove_if_unused(self.device)
            // ENODEV, EINVAL, ENOENT: the device is gone, or somebody was faster.
            && !matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EINVAL | libc::ENOENT))
        {
            tracing::warn!(device = self.device, %error, "a clsact discipline is left behind");
        }
    }
}

/// Removes a device's `clsact`, unless somebody has filters in it.
fn remove_if_unused(device: u32) -> io::Result<()> {
    let mut questions = Questions::open(None)?;
    for place in PLACES {
        let mut filters = 0;
        questions.ask(LIST_FILTERS, LIST, &tc_message(device, 0, place), |answer| {
            filters += u32::from(answer.kind == FILTER);
        })?;
        if filters > 0 {
            return Ok(());
        }
    }
    questions.ask(DELETE_DISCIPLINE, ACKNOWLEDGE, &tc_message(device, HANDLE, PARENT), |_| {})
}

/// `struct tcmsg`: family and padding, device, handle, parent, info.
fn tc_message(device: u32, handle: u32, parent: u32) -> [u8; 20] {
    let mut message = [0; 20];
    for (word, value) in message.chunks_exact_mut(4).zip([0, device, handle, parent, 0]) {
        word.copy_from_slice(&value.to_ne_bytes());
    }
    message
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use aya::programs::tc::qdisc_add_clsact;

    use crate::datapath::bpf::Kernel;

    /// Runs `ip` or `tc`; what it prints.
    fn tool(line: &str) -> String {
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap());
        let output = command.args(words).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn index_of(name: &str) -> u32 {
        let text = std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).unwrap();
        text.trim().parse().unwrap()
    }

    #[test]
    fn what_was_put_in_is_taken_out_and_what_others_have_stays() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("!!! SKIPPED: filters need root");
            return;
        }
        let name = format!("wspc{}", std::process::id());
        tool(&format!("ip link add {name} type veth peer name {name}b"));
        let device = index_of(&name);
        let loaded = Kernel::load(8, true, None).unwrap();
        let disciplines = || tool(&format!("tc qdisc show dev {name}"));
        let filters = || tool(&format!("tc filter show dev {name} ingress"));

        // Nobody has one: it comes and goes with the filter.
        let first = loaded.kernel.attach_classical(device, &name, false).unwrap();
        assert!(disciplines().contains("clsact") && filters().contains("wsproxy_packet"));
        drop(first);
        assert!(!disciplines().contains("clsact"), "{}", disciplines());

        // Somebody puts a filter into ours meanwhile: that one stays, and ours goes.
        let second = loaded.kernel.attach_classical(device, &name, false).unwrap();
        let other = loaded.kernel.attach_classical(device, &name, true).unwrap();
        drop(second);
        assert!(disciplines().contains("clsact") && !filters().contains("wsproxy_packet"));
        drop(other);
        tool(&format!("tc qdisc del dev {name} clsact"));

        // Somebody has one already, empty: it is his.
        qdisc_add_clsact(&name).unwrap();
        drop(loaded.kernel.attach_classical(device, &name, false).unwrap());
        assert!(disciplines().contains("clsact") && !filters().contains("wsproxy_packet"));
        tool(&format!("ip link del {name}"));
    }
}
