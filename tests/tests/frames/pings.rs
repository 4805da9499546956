//! Pings beside what else goes on in a session.

use super::*;

over_both!(pings_in_front_of_a_close_are_counted);

/// A Ping that waits for the end of a frame, behind which a Close comes at once.
fn pings_in_front_of_a_close_are_counted(mode: Mode) {
    for _ in 0..3 {
        let Some(bench) = Bench::start(options(mode)) else { return };
        let ping = Duration::from_millis(20);
        let mut ends = open(&bench, pinged(ping, Duration::from_secs(20), false));
        let whole = frame(0x82, false, &[7; 1000]);
        ends.server.write_all(&whole[..500]).unwrap();
        arrived(&ends.client, 500);
        // Until it waits; if it does not yet, there is none.
        thread::sleep(ping * 5);
        let rest = [&whole[500..], &close(false, 1000, "")].concat();
        ends.server.write_all(&rest).unwrap();
        let mut pings = 0;
        loop {
            let next = ends.to_client.frame().unwrap();
            if next.opcode() == 8 {
                break;
            }
            pings += usize::from(is_ours(&next));
        }
        drop(ends);
        bench.all_gone();
        assert_eq!(bench.record.pinged.lock().unwrap().len(), pings);
    }
}
