//! Against a receiver in this process, whose answers are laid down.

use std::collections::VecDeque;

use http::header::RETRY_AFTER;
use tokio::time::Instant as Clock;

use super::*;

/// What it got and what it will say. With nothing laid down it says that all is well.
#[derive(Default)]
struct Receiver {
    answers: Mutex<VecDeque<Response<Full<Bytes>>>>,
    logs: Mutex<Vec<(Clock, ExportLogsServiceRequest)>>,
    metrics: Mutex<Vec<ExportMetricsServiceRequest>>,
}

impl Receiver {
    async fn start(answers: Vec<Response<Full<Bytes>>>) -> (Arc<Receiver>, SocketAddr) {
        let receiver = Arc::new(Receiver { answers: Mutex::new(answers.into()), ..Receiver::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::clone(&receiver);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                let service = service_fn(move |request| Arc::clone(&shared).answer(request));
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        (receiver, address)
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let path = request.uri().path().to_owned();
        assert!(request.headers()["content-type"] == "application/x-protobuf" && request.headers()["x-key"] == "secret");
        let body = request.into_body().collect().await.unwrap().to_bytes();
        match path.as_str() {
            "/base/v1/logs" => self.logs.lock().unwrap().push((Clock::now(), ExportLogsServiceRequest::decode(body).unwrap())),
            "/base/v1/metrics" => {
                self.metrics.lock().unwrap().push(ExportMetricsServiceRequest::decode(body).unwrap());
                return Ok(Response::new(Full::default()));
            }
            other => panic!("{other}"),
        }
        Ok(self.answers.lock().unwrap().pop_front().unwrap_or_default())
    }

    /// Records in each request.
    fn sizes(&self) -> Vec<usize> {
        let logs = self.logs.lock().unwrap();
        logs.iter().map(|(_, request)| request.resource_logs[0].scope_logs[0].log_records.len()).collect()
    }
}

fn status(status: StatusCode) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::default()).unwrap()
}

async fn until(what: &str, test: impl Fn() -> bool) {
    let end = Clock::now() + Duration::from_secs(20);
    while !test() {
        assert!(Clock::now() < end, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn sink(answers: Vec<Response<Full<Bytes>>>) -> (Arc<Receiver>, Otlp, Arc<Counters>) {
    let (receiver, address) = Receiver::start(answers).await;
    let sink = Otlp::start(options(&format!("http://{address}/base")), &Handle::current()).unwrap();
    let counters = sink.counters();
    (receiver, sink, counters)
}

async fn end(mut sink: Otlp) {
    sink.finish(at(100));
    for task in sink.tasks() {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn records_and_sums_arrive() {
    let (receiver, mut sink, counters) = sink(Vec::new()).await;
    (0..5).for_each(|id| sink.take(&full(id, 2), at(0)));
    sink.take(&repeats(1, 4), at(0));
    end(sink).await;
    assert_eq!(receiver.sizes(), [6]);
    assert_eq!((counters.sent(), counters.waiting(), counters.lost(), counters.failed_requests()), (6, 0, 0, 0));
    assert_eq!((counters.points_sent(), receiver.metrics.lock().unwrap().len()), (1, 1));
    let logs = &receiver.logs.lock().unwrap()[0].1.resource_logs[0];
    assert!(logs.schema_url == SCHEMA && attributes(&logs.resource.as_ref().unwrap().attributes).contains("k8s.node.name = node-2"));
}

#[tokio::test]
async fn what_is_to_be_tried_again_is_after_the_time_that_was_asked_for() {
    let mut busy = status(StatusCode::TOO_MANY_REQUESTS);
    busy.headers_mut().insert(RETRY_AFTER, "1".parse().unwrap());
    let (receiver, mut sink, counters) = sink(vec![busy, status(StatusCode::SERVICE_UNAVAILABLE)]).await;
    sink.take(&full(1, 1), at(0));
    until("the record", || counters.sent() == 1).await;
    let times: Vec<Clock> = receiver.logs.lock().unwrap().iter().map(|(time, _)| *time).collect();
    assert!(times.len() == 3 && times[1] - times[0] >= Duration::from_secs(1), "{times:?}");
    assert_eq!((counters.lost(), counters.requests(), counters.failed_requests()), (0, 3, 2));
    end(sink).await;
}

#[tokio::test]
async fn what_is_refused_is_counted_and_not_tried_again() {
    let partial = ExportLogsPartialSuccess { rejected_log_records: 2, error_message: "too old".into() };
    let body = ExportLogsServiceResponse { partial_success: Some(partial) }.encode_to_vec();
    let partly = Response::builder().header("content-type", "application/x-protobuf").body(Full::from(body)).unwrap();
    let (receiver, mut sink, counters) = sink(vec![status(StatusCode::BAD_REQUEST), partly]).await;
    sink.take(&full(1, 1), at(0));
    until("the refusal", || counters.refused() == 1).await;
    (0..3).for_each(|id| sink.take(&full(id, 1), at(0)));
    until("the rest", || counters.waiting() == 0).await;
    assert_eq!((counters.sent(), counters.refused(), receiver.sizes()), (1, 3, vec![1, 3]));
    end(sink).await;
}

#[tokio::test]
async fn a_receiver_that_is_away_takes_no_time_at_the_end_and_loses_nothing_uncounted() {
    // Nobody listens there.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut sink = Otlp::start(options(&format!("http://{gone}")), &Handle::current()).unwrap();
    let counters = sink.counters();
    (0..12).for_each(|id| sink.take(&full(id, 1), at(0)));
    let start = Clock::now();
    end(sink).await;
    assert!(start.elapsed() < FLUSH + Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!((counters.records(), counters.sent(), counters.waiting()), (12, 0, 0));
    assert!(counters.queue_full() >= 3 && counters.lost() == 12, "{counters:?}");
}
