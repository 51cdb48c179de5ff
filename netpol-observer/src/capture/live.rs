//! Live capture: the ring reader, the turning of the fold tables and the kernel's counters, as one stream of [`Captured`].

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use bytes::BytesMut;
use netpol_observer_common::DropRecord;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use super::candidates::Candidates;
use super::error::CaptureError;
use super::forms::{Attach, Form};
use super::kernel::{Kernel, LiveNames};
use super::program::Program;
use super::surroundings::Surroundings;
use super::symbols::Symbols;
use super::{Captured, KernelLedger};
use crate::flow::KernelNames;

/// How capture is set up.
#[derive(Clone, Debug)]
pub struct LiveOptions {
    /// Bytes of the ring between kernel and user space: a power of two, at least a page.
    pub ring_bytes: u32,
    /// How often repeats are fetched from the kernel. A key whose drops go on is also reported afresh this often.
    pub fold_interval: Duration,
    /// Which form of the program to load.
    pub attach: Attach,
    /// BTF of this very kernel, in the form of /sys/kernel/btf/vmlinux, for kernels that show none.
    pub kernel_btf: Option<PathBuf>,
}

impl Default for LiveOptions {
    fn default() -> Self {
        LiveOptions { ring_bytes: 8 * 1024 * 1024, fold_interval: Duration::from_secs(1), attach: Attach::Auto, kernel_btf: None }
    }
}

/// Records taken from the ring before they are handed on.
const BATCH: usize = 1024;
/// Records that may wait for a slow reader. Beyond that the ring fills, and the kernel counts what it could not write.
const WAITING: usize = 16 * BATCH;
/// What a ring buffer has in front of each record (`BPF_RINGBUF_HDR_SZ`).
const RECORD_HEADER: usize = 8;
/// Between two readings of the ring. The kernel wakes a reader that has read everything: by interrupt, in the middle of what drops packets.
const READ_INTERVAL: Duration = Duration::from_millis(1);
/// How often loaded modules are looked at for new symbols.
const MODULES_INTERVAL: Duration = Duration::from_secs(10);

/// A running capture.
pub struct Live {
    batches: mpsc::UnboundedReceiver<Vec<Captured>>,
    room: Arc<Semaphore>,
    current: std::vec::IntoIter<Captured>,
    names: Arc<LiveNames>,
    stop: Option<oneshot::Sender<()>>,
    release: String,
    form: Form,
}

/// Loads and attaches the program and starts reading, in a thread of its own.
///
/// # Errors
/// When the kernel, the process's permissions or the binary do not allow it; the error says which.
pub fn open(options: LiveOptions) -> Result<Live, CaptureError> {
    let kernel = Kernel::read(options.kernel_btf.as_deref())?;
    let offsets = kernel.offsets()?;
    for (field, error) in &offsets.absent {
        tracing::info!("not recorded on this kernel: {field:?} ({error})");
    }
    let reasons = kernel.reasons();
    let names = Arc::new(kernel.names());
    if reasons.is_empty() && names.with_symbols(Symbols::is_empty) {
        return Err(CaptureError::NoPlaces { release: kernel.release });
    }
    let mut program = names.with_symbols(|symbols| Program::load(&kernel, &offsets, symbols, options.ring_bytes, options.attach))?;
    let form = program.form();
    match Surroundings::load(&program.shared(), &kernel) {
        Ok(surroundings) => names.set_surroundings(surroundings),
        // Drops are reported all the same.
        Err(error) => tracing::warn!("tables, chains and the other ends of devices will not be known: {error}"),
    }
    let ring = program.take_ring()?;
    let logger = program.take_logger();
    program.attach()?;
    let candidates = names.with_symbols(|symbols| Candidates::new(&reasons, symbols));
    program.set_candidates(&candidates)?;

    let (batches_in, batches) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(WAITING));
    let out = Out { batches: batches_in, room: Arc::clone(&room) };
    let (stop, stopped) = oneshot::channel();
    let reader = Reader {
        program,
        ring_records: options.ring_bytes as usize / (size_of::<DropRecord>() + RECORD_HEADER) + 1,
        logger,
        received: 0,
        folded_delivered: 0,
        arena: BytesMut::new(),
        names: Arc::clone(&names),
        reasons,
        modules: modules(),
    };
    start(reader, ring, options.fold_interval, out, stopped)?;
    Ok(Live { batches, room, current: Vec::new().into_iter(), names, stop: Some(stop), release: kernel.release, form })
}

/// Reads in a thread of its own: the tables must turn in time also while explanations take all there is of the other threads, or drops that lie
/// further apart than the interval are counted as one flow's.
fn start(
    reader: Reader,
    ring: RingBuf<MapData>,
    fold_interval: Duration,
    out: Out,
    stopped: oneshot::Receiver<()>,
) -> Result<(), CaptureError> {
    let failed = |error| CaptureError::Io { what: "start the thread that reads the ring", error };
    let run = move || {
        let read = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                // SAFETY: the ring owns its map's descriptor and keeps it open and unchanged until it is dropped together with the AsyncFd.
                let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }?;
                reader.run(ring, fold_interval, out, stopped).await;
                io::Result::Ok(())
            })
        };
        if let Err(error) = read() {
            tracing::error!("the ring cannot be watched: {error}");
        }
    };
    std::thread::Builder::new().name("ring".to_owned()).spawn(run).map_err(failed)?;
    Ok(())
}

impl Live {
    /// The next captured item; `None` after [`Live::stop`] when everything has been delivered. The last item is the final,
    /// exact ledger. Cancel-safe.
    pub async fn next(&mut self) -> Option<Captured> {
        loop {
            if let Some(captured) = self.current.next() {
                return Some(captured);
            }
            let batch = self.batches.recv().await?;
            self.begin(batch);
        }
    }

    /// The next item, if it is there already.
    pub fn ready(&mut self) -> Option<Captured> {
        loop {
            if let Some(captured) = self.current.next() {
                return Some(captured);
            }
            let batch = self.batches.try_recv().ok()?;
            self.begin(batch);
        }
    }

    fn begin(&mut self, batch: Vec<Captured>) {
        self.room.add_permits(batch.len());
        self.current = batch.into_iter();
    }

    /// Detaches the program. What it has captured is still delivered by [`Live::next`].
    pub fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The reader may have ended already.
            let _ = stop.send(());
        }
    }

    /// Stops, and gives what was still under way; the final ledger is the last of it.
    pub async fn finish(mut self) -> Vec<Captured> {
        self.stop();
        let mut rest = Vec::new();
        while let Some(captured) = self.next().await {
            rest.push(captured);
        }
        rest
    }

    /// What gives this kernel's numbers their names.
    pub fn names(&self) -> Arc<dyn KernelNames + Send + Sync> {
        Arc::clone(&self.names) as Arc<dyn KernelNames + Send + Sync>
    }

    /// The drop reasons of this kernel, by number, without prefix.
    pub fn reasons(&self) -> &std::collections::BTreeMap<u32, Arc<str>> {
        self.names.reasons()
    }

    /// `uname -r`
    pub fn release(&self) -> &str {
        &self.release
    }

    /// Whether the kernel shows where its functions are, so that places have names.
    pub fn knows_functions(&self) -> bool {
        !self.names.with_symbols(Symbols::is_empty)
    }

    /// Which form of the program is attached.
    pub fn form(&self) -> Form {
        self.form
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // The reader need not wait for room any more.
        self.room.close();
    }
}

/// Whoever took the batches has gone.
struct Gone;

/// Where batches go. By records, not by batches: a batch may be one record, and the tables must turn while many of them wait.
struct Out {
    batches: mpsc::UnboundedSender<Vec<Captured>>,
    room: Arc<Semaphore>,
}

impl Out {
    /// Waits for room. A slow reader holds the ring back here; the kernel counts what no longer fits.
    async fn send(&self, batch: Vec<Captured>) -> Result<(), Gone> {
        // A batch is never more than there can be room for.
        let records = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        self.room.acquire_many(records).await.map_err(|_| Gone)?.forget();
        self.batches.send(batch).map_err(|_| Gone)
    }
}

struct Reader {
    program: Program,
    /// As many as the ring holds.
    ring_records: usize,
    logger: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
    received: u64,
    folded_delivered: u64,
    arena: BytesMut,
    names: Arc<LiveNames>,
    reasons: std::collections::BTreeMap<u32, String>,
    modules: String,
}

impl Reader {
    async fn run(mut self, mut ring: AsyncFd<RingBuf<MapData>>, fold_interval: Duration, out: Out, mut stopped: oneshot::Receiver<()>) {
        let mut fold = interval_at(Instant::now() + fold_interval, fold_interval);
        fold.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut modules = interval_at(Instant::now() + MODULES_INTERVAL, MODULES_INTERVAL);
        modules.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rested = Instant::now();
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                // Stopping also when the other half was dropped.
                _ = &mut stopped => break,
                _ = fold.tick() => {
                    let misses = self.program.misses();
                    if self.turn(&mut ring, &out).await.is_err() || out.send(vec![self.ledger(misses)]).await.is_err() {
                        break;
                    }
                }
                _ = modules.tick() => self.look_for_modules(),
                result = read_ready(&mut ring, rested, &mut self.arena, &mut batch) => match result {
                    Ok(()) => {
                        self.received += batch.len() as u64;
                        rested = Instant::now() + READ_INTERVAL;
                    }
                    Err(error) => {
                        tracing::error!("reading the ring: {error}");
                        break;
                    }
                },
            }
            if !batch.is_empty() && out.send(batch).await.is_err() {
                break;
            }
        }
        self.program_end(&mut ring, &out).await;
    }

    async fn program_end(mut self, ring: &mut AsyncFd<RingBuf<MapData>>, out: &Out) {
        let misses = self.program.misses();
        self.program.detach();
        // A run that began before the table turned may have opened its key in the other one. Whoever does not listen any more need not hear.
        for _ in 0..2 {
            let _ = self.turn(ring, out).await;
        }
        let _ = out.send(vec![self.ledger(misses)]).await;
    }

    /// Everything that is in the ring now, then the repeats: a repeat is always behind its record. A slow reader holds it back between
    /// batches, so that no more records are under way than [`WAITING`].
    async fn turn(&mut self, ring: &mut AsyncFd<RingBuf<MapData>>, out: &Out) -> Result<(), Gone> {
        let mut repeats = self.program.turn_fold();
        // More than the ring holds were not in it when the tables turned: in a flood it does not become empty.
        let mut left = self.ring_records;
        while left > 0 {
            let mut batch = Vec::new();
            let more = drain(ring.get_mut(), &mut self.arena, &mut batch, BATCH.min(left));
            left -= batch.len();
            self.received += batch.len() as u64;
            if !batch.is_empty() {
                out.send(batch).await?;
            }
            if !more {
                break;
            }
        }
        while !repeats.is_empty() {
            let batch = repeats.split_off(repeats.len().saturating_sub(BATCH));
            self.folded_delivered += batch.iter().map(|(_, value)| value.count).sum::<u64>();
            out.send(batch.into_iter().map(|(key, value)| Captured::Repeat { key, value }).collect()).await?;
        }
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
        Ok(())
    }

    fn ledger(&mut self, program_misses: u64) -> Captured {
        Captured::Ledger(KernelLedger {
            counters: self.program.counters(),
            received: self.received,
            folded_delivered: self.folded_delivered,
            program_misses,
        })
    }

    /// New modules bring new functions: names for locations, and places where drops happen.
    fn look_for_modules(&mut self) {
        let now = modules();
        if now == self.modules {
            return;
        }
        self.modules = now;
        self.names.reload();
        let candidates = self.names.with_symbols(|symbols| Candidates::new(&self.reasons, symbols));
        if let Err(error) = self.program.set_candidates(&candidates) {
            tracing::warn!("after modules changed: {error}");
        }
    }
}

/// Names of the loaded modules; empty on a kernel without them. The functions of those that come later have no names for up to ten seconds.
pub fn modules() -> String {
    let text = std::fs::read_to_string("/proc/modules").unwrap_or_default();
    text.lines().filter_map(|line| line.split(' ').next()).collect::<Vec<_>>().join(" ")
}

/// Waits for the ring, and until `rested`, and takes a batch from it. Cancel-safe.
async fn read_ready(
    ring: &mut AsyncFd<RingBuf<MapData>>,
    rested: Instant,
    arena: &mut BytesMut,
    batch: &mut Vec<Captured>,
) -> io::Result<()> {
    sleep_until(rested).await;
    let mut ready = ring.readable_mut().await?;
    // Readiness is cleared only when the ring was seen empty, or a wake-up could be missed.
    if !drain(ready.get_inner_mut(), arena, batch, BATCH) {
        ready.clear_ready();
    }
    Ok(())
}

/// Takes up to `limit` records; whether there may be more.
fn drain(ring: &mut RingBuf<MapData>, arena: &mut BytesMut, batch: &mut Vec<Captured>, limit: usize) -> bool {
    for _ in 0..limit {
        let Some(item) = ring.next() else { return false };
        // One allocation serves many records.
        if arena.capacity() < item.len() {
            arena.reserve(size_of::<DropRecord>() * 128);
        }
        arena.extend_from_slice(&item);
        batch.push(Captured::Record(arena.split().freeze()));
    }
    true
}
