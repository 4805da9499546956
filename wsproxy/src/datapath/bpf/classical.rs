//! The packet path's program as a classical filter, on kernels without tcx (before Linux 6.6): a
//! filter of the queueing discipline `clsact`, which a device has once, for everybody. Each datapath
//! has a filter of its own there, of its own priority.

use std::{
    io,
    os::fd::OwnedFd,
    thread,
    time::{Duration, Instant},
};

use aya::programs::{
    SchedClassifier, TcAttachType,
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact},
};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with},
};

use super::packet::refusal;
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
/// The handle of filters in a discipline that some wsproxy has made: whoever of them goes last takes
/// the discipline out. It is unique among the filters of one priority only, so all can have it.
const IN_OURS: TcHandle = TcHandle::new(0x7773, 1);
/// How often a filter is tried to be put in while somebody else takes the discipline out.
const TRIES: u32 = 3;
/// How long is waited for other processes of wsproxy. They need a few system calls.
const PATIENCE: Duration = Duration::from_millis(500);
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// A filter of ours. Taken out when dropped, and the discipline with it if one of us made it and
/// nobody has filters there any more.
#[derive(Debug)]
pub(super) struct Classical {
    link: Option<SchedClassifierLink>,
    device: u32,
    /// The discipline was made by this process, or by another one of wsproxy.
    ours: bool,
}

impl Classical {
    /// Puts a filter with this program in.
    ///
    /// # Errors
    /// What the kernel says. Nothing is left behind then.
    pub(super) fn attach(
        program: &mut SchedClassifier,
        device: u32,
        name: &str,
        place: TcAttachType,
    ) -> io::Result<Self> {
        let _alone = Alone::wait(device);
        let mut tries = 1;
        loop {
            match Self::attach_once(program, device, name, place) {
                // Between two calls somebody else may take the discipline out.
                Err(_) if tries < TRIES => tries += 1,
                attached => return attached,
            }
        }
    }

    fn attach_once(
        program: &mut SchedClassifier,
        device: u32,
        name: &str,
        place: TcAttachType,
    ) -> io::Result<Self> {
        // It fails where the device has the discipline already.
        let made = qdisc_add_clsact(name).is_ok();
        let ours = made || filters(device)?.contains(&IN_OURS.into());
        let handle = if ours { IN_OURS } else { TcHandle::AUTO_ASSIGN };
        let options = NlOptions { handle, ..NlOptions::default() };
        let attached = program.attach_with_options(name, place, TcAttachOptions::Netlink(options));
        match attached.and_then(|link| program.take_link(link)) {
            Ok(link) => Ok(Self { link: Some(link), device, ours }),
            Err(error) => {
                leave(device, made);
                Err(refusal(error))
            }
        }
    }
}

impl Drop for Classical {
    fn drop(&mut self) {
        let _alone = Alone::wait(self.device);
        // Its end is what takes the filter out.
        drop(self.link.take());
        leave(self.device, self.ours);
    }
}

/// Removes a device's `clsact` if it is ours and nobody has filters in it.
fn leave(device: u32, ours: bool) {
    if ours
        && let Err(error) = remove_if_unused(device)
        // The device is gone, or somebody was faster.
        && !matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EINVAL | libc::ENOENT))
    {
        tracing::warn!(device, %error, "a clsact discipline is left behind");
    }
}

/// No request of rtnetlink removes a discipline only if it is empty: who is no wsproxy and puts a
/// filter in between both questions loses it.
fn remove_if_unused(device: u32) -> io::Result<()> {
    if !filters(device)?.is_empty() {
        return Ok(());
    }
    let message = tc_message(device, HANDLE, PARENT);
    Questions::open(None)?.ask(DELETE_DISCIPLINE, ACKNOWLEDGE, &message, |_| {})
}

/// The handles of the filters in a device's `clsact`; of each priority there is a 0 besides
/// (`tcf_chain_dump`).
fn filters(device: u32) -> io::Result<Vec<u32>> {
    let mut questions = Questions::open(None)?;
    let mut handles = Vec::new();
    for place in PLACES {
        questions.ask(LIST_FILTERS, LIST, &tc_message(device, 0, place), |answer| {
            if answer.kind == FILTER {
                let handle = answer.body.get(8..12).and_then(|word| word.try_into().ok());
                handles.push(handle.map_or(0, u32::from_ne_bytes));
            }
        })?;
    }
    Ok(handles)
}

/// `struct tcmsg`: family and padding, device, handle, parent, info.
fn tc_message(device: u32, handle: u32, parent: u32) -> [u8; 20] {
    let mut message = [0; 20];
    for (word, value) in message.chunks_exact_mut(4).zip([0, device, handle, parent, 0]) {
        word.copy_from_slice(&value.to_ne_bytes());
    }
    message
}

/// No other wsproxy puts filters into a device's `clsact` or takes it out while this lives: one would
/// lose the filter that it puts into a discipline that another one has just found empty.
///
/// It is the abstract name of a Unix socket, which one socket of a network namespace can have, as one
/// device of it has the index; the kernel frees it however the process ends (unix(7)).
#[derive(Debug)]
struct Alone {
    _name: OwnedFd,
}

impl Alone {
    /// `None`: it can't be had. Better not alone than no filter: whoever has the name for so long may
    /// be anybody.
    fn wait(device: u32) -> Option<Self> {
        let end = Instant::now() + PATIENCE;
        loop {
            match Self::take(device) {
                Ok(alone) => return Some(alone),
                Err(Errno::ADDRINUSE) if Instant::now() < end => thread::sleep(LOOK_AGAIN),
                Err(error) => {
                    tracing::warn!(device, %error, "another wsproxy may be at its clsact");
                    return None;
                }
            }
        }
    }

    fn take(device: u32) -> Result<Self, Errno> {
        let name = format!("wsproxy-clsact-{device}");
        let address = SocketAddrUnix::new_abstract_name(name.as_bytes())?;
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        bind(&socket, &address)?;
        Ok(Self { _name: socket })
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use wsproxy_common::layout::PACKET_PROGRAM;

    use super::*;
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

    /// A device of the test's own, with its peer.
    struct Device {
        name: String,
        index: u32,
    }

    impl Device {
        /// `None`: not as root.
        fn make(letter: char) -> Option<Self> {
            if !rustix::process::geteuid().is_root() {
                eprintln!("!!! SKIPPED: filters need root");
                return None;
            }
            let name = format!("wsp{letter}{}", std::process::id());
            tool(&format!("ip link add {name} type veth peer name {name}b"));
            let index = index_of(&name);
            Some(Self { name, index })
        }

        fn attach(&self, kernel: &Kernel, egress: bool) -> Classical {
            kernel.attach_classical(self.index, &self.name, egress).unwrap()
        }

        fn has_discipline(&self) -> bool {
            tool(&format!("tc qdisc show dev {}", self.name)).contains("clsact")
        }

        /// Filters of ours at the ingress.
        fn filters(&self) -> usize {
            let listed = tool(&format!("tc filter show dev {} ingress", self.name));
            listed.lines().filter(|line| line.contains("wsproxy_packet")).count()
        }
    }

    impl Drop for Device {
        fn drop(&mut self) {
            let _removed = Command::new("ip").args(["link", "del", &self.name]).output();
        }
    }

    #[test]
    fn what_was_put_in_is_taken_out_and_what_others_have_stays() {
        let Some(device) = Device::make('c') else { return };
        let kernel = Kernel::load(8, true, None).unwrap().kernel;

        // Nobody has one: it comes and goes with the filter.
        let first = device.attach(&kernel, false);
        assert!(device.has_discipline() && device.filters() == 1);
        drop(first);
        assert!(!device.has_discipline());

        // Somebody puts a filter into ours meanwhile: that one stays, and ours goes.
        let second = device.attach(&kernel, false);
        let mut object = kernel.object.lock().unwrap();
        let program = object.program_mut(PACKET_PROGRAM).unwrap();
        let program: &mut SchedClassifier = program.try_into().unwrap();
        let plain = TcAttachOptions::Netlink(NlOptions::default());
        program.attach_with_options(&device.name, TcAttachType::Egress, plain).unwrap();
        drop((object, second));
        assert!(device.has_discipline() && device.filters() == 0);
        let listed = tool(&format!("tc filter show dev {} egress", device.name));
        assert!(listed.contains("handle 0x1 "), "{listed}");
        tool(&format!("tc qdisc del dev {} clsact", device.name));

        // Somebody has one already, empty: it is his.
        qdisc_add_clsact(&device.name).unwrap();
        drop(device.attach(&kernel, false));
        assert!(device.has_discipline() && device.filters() == 0);
    }

    #[test]
    fn the_last_one_of_several_takes_the_discipline_out() {
        let Some(device) = Device::make('d') else { return };
        let kernels = [(); 3].map(|()| Kernel::load(8, true, None).unwrap().kernel);
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut all = kernels.each_ref().map(|kernel| Some(device.attach(kernel, false)));
            for (gone, at) in order.into_iter().enumerate() {
                assert!(device.has_discipline() && device.filters() == 3 - gone);
                all[at] = None;
            }
            assert!(!device.has_discipline());
        }
    }

    #[test]
    fn nobody_loses_the_filter_to_one_who_goes() {
        let Some(device) = Device::make('e') else { return };
        const ROUNDS: usize = 100;
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let kernel = Kernel::load(8, true, None).unwrap().kernel;
                    for _ in 0..ROUNDS {
                        let filter = device.attach(&kernel, false);
                        let handle = filter.link.as_ref().unwrap().handle().unwrap();
                        assert_eq!(handle, IN_OURS, "the discipline was nobody's");
                        let listed = filters(device.index).unwrap();
                        assert!(listed.contains(&IN_OURS.into()), "no filter: {listed:?}");
                    }
                });
            }
        });
        assert!(!device.has_discipline());
    }
}
