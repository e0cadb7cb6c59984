//! A real etcd, version 3.4 or later.
//!
//! What may be asked twice is asked of the next member when one fails; a transaction is sent once, since one
//! whose answer is lost may have happened.

mod address;
mod events;
mod members;
mod request;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, Error, GetOptions, GetResponse,
    Identity, ResponseHeader, TlsOptions, Txn, TxnOp, WatchOptions,
};

use super::{Answer, Fault, LeaseId, Request};
use crate::clustered::{EPOCH_KEY, OPENED_KEY};
use crate::record::Record;

pub(crate) use events::Stream;
use members::Members;

/// A key whose events say only how far a watch is; readers never see it.
const MARK_KEY: &str = "store/mark";

/// How long a member may take to answer a transaction before another is spoken to.
const TRANSACTION: Duration = Duration::from_secs(2);

/// How long a member may take for anything that is asked of the next one otherwise: two are asked in the time
/// that callers wait.
const ATTEMPT: Duration = Duration::from_millis(1_400);

/// How long a member may take to renew a lease: two are asked before a leader's lease of 3 s has run out.
const RENEWAL: Duration = Duration::from_millis(900);

/// How long a member may take for one page of records.
const PAGE: Duration = Duration::from_secs(10);

/// Records of the first page; later ones are as large as fits `PAGE_BYTES`.
const FIRST_PAGE: usize = 250;
const PAGE_BYTES: usize = 4 * 1024 * 1024;
const LARGEST_PAGE: usize = 10_000;

/// The largest answer that is read: a revision is one message, and catching up may bring a thousand revisions at
/// once, each of which has at most about a megabyte.
const LARGEST_ANSWER: usize = 2 * 1024 * 1024 * 1024 - 1;

/// An etcd as one store reaches it.
#[derive(Debug)]
pub(crate) struct Handle {
    members: Arc<Members>,
    prefix: Arc<str>,
}

impl Handle {
    /// Reads an address, and the files that it names; connects to nothing. The error says what is wrong.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        let address = address::parse(text)?;
        options(&address)?;
        let (endpoints, prefix) = (address.endpoints.clone(), address.prefix.clone());
        Ok(Self {
            members: Arc::new(Members::new(&endpoints, move || options(&address))),
            prefix: prefix.into(),
        })
    }

    /// Asks member after member, each once.
    async fn repeat<T, F: Future<Output = Result<T, Error>>>(
        &self,
        limit: Duration,
        call: impl Fn(Client) -> F,
    ) -> Result<T, Fault> {
        let mut last = None;
        for _ in 0..self.members.len() {
            match self.members.attempt(limit, &call).await {
                Err(fault @ Fault::Unavailable(_)) => last = Some(fault),
                settled => return settled,
            }
        }
        Err(last.unwrap_or_else(|| Fault::Unavailable("no members".to_owned())))
    }

    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    pub(super) async fn list(&self) -> Result<(Vec<Record>, u64), Fault> {
        let revision = self.begin().await?;
        self.read_at(revision).await
    }

    /// As of a revision that most of the members had when this was asked, or a later one.
    pub(super) async fn read(&self) -> Result<(Vec<Record>, u64), Fault> {
        let revision = revision(self.epoch().await?.header())?;
        self.read_at(revision).await
    }

    async fn read_at(&self, revision: u64) -> Result<(Vec<Record>, u64), Fault> {
        let mut records = Vec::new();
        let mut after: Option<Vec<u8>> = None;
        let mut limit = FIRST_PAGE;
        loop {
            let page = self.page(after.as_deref(), revision, limit).await?;
            let bytes: usize = page.kvs().iter().map(|pair| pair.value().len()).sum();
            for pair in page.kvs() {
                let key = events::own_key(&self.prefix, pair);
                records.extend(key.map(|key| events::record(key, pair)));
            }
            after = page.kvs().last().map(|pair| pair.key().to_vec());
            limit = next_limit(page.kvs().len(), bytes);
            if !page.more() {
                return Ok((records, revision));
            }
        }
    }

    /// The revision to read at: in a store the one of a record of this opening, which all instances come to.
    async fn begin(&self) -> Result<u64, Fault> {
        let there = Compare::create_revision(self.full(EPOCH_KEY), CompareOp::Greater, 0);
        let put = TxnOp::put(self.full(OPENED_KEY), "", None);
        let put = Txn::new().when([there]).and_then([put]);
        let call = |mut client: Client| {
            let put = put.clone();
            async move { client.txn(put).await }
        };
        revision(self.repeat(ATTEMPT, call).await?.header())
    }

    async fn page(
        &self,
        after: Option<&[u8]>,
        revision: u64,
        limit: usize,
    ) -> Result<GetResponse, Fault> {
        let options = GetOptions::new()
            .with_range(end(&self.prefix))
            .with_revision(number(revision))
            .with_limit(i64::try_from(limit).unwrap_or(i64::MAX));
        // The least key after that one.
        let from = after.map(|key| [key, b"\0"].concat());
        let from = from.unwrap_or_else(|| self.prefix.as_bytes().to_vec());
        let call = |client: Client| {
            let mut client = client.kv_client().max_decoding_message_size(LARGEST_ANSWER);
            let (from, options) = (from.clone(), options.clone());
            async move { client.get(from, Some(options)).await }
        };
        self.repeat(PAGE, call).await
    }

    pub(super) async fn commit(&self, request: Request) -> Result<Answer, Fault> {
        let (transaction, puts) = request::render(&self.prefix, &request);
        let call = |mut client: Client| async move { client.txn(transaction).await };
        let response = self.members.attempt(TRANSACTION, call).await?;
        request::parse(&self.prefix, &request, puts, &response)
    }

    /// Read by most of the members: what an answer says was so when it was asked, or came later.
    pub(super) async fn modified(&self, key: &str) -> Result<Option<u64>, Fault> {
        let key = self.full(key);
        let call = |mut client: Client| {
            let (key, options) = (key.clone(), GetOptions::new().with_keys_only());
            async move { client.get(key, Some(options)).await }
        };
        let found = self.repeat(ATTEMPT, call).await?;
        let modified = found.kvs().first().map(etcd_client::KeyValue::mod_revision);
        Ok(modified.and_then(|revision| u64::try_from(revision).ok()))
    }

    /// Puts the mark, whose event shows that all before it were told.
    pub(super) async fn mark(&self) -> Result<(), Fault> {
        let key = self.full(MARK_KEY);
        let call = |mut client: Client| async move { client.put(key, "", None).await };
        self.members.attempt(ATTEMPT, call).await.map(drop)
    }

    pub(super) async fn watch(&self, after: u64) -> Result<Stream, Fault> {
        self.check_same(after).await?;
        let (turn, client) = self.members.chosen().await?;
        let options = WatchOptions::new()
            .with_prefix()
            .with_start_revision(number(after.saturating_add(1)));
        let mut client = client
            .watch_client()
            .max_decoding_message_size(LARGEST_ANSWER);
        // The library's futures are large.
        let begun = Box::pin(client.watch(&*self.prefix, Some(options))).await;
        let stream = begun.map_err(|error| self.members.judge_stream(turn, &error))?;
        let members = Arc::clone(&self.members);
        Ok(Stream::new(members, turn, stream, Arc::clone(&self.prefix)))
    }

    /// The record of the store's epoch, with the revision of now.
    async fn epoch(&self) -> Result<GetResponse, Fault> {
        let call = |mut client: Client| {
            let key = self.full(EPOCH_KEY);
            async move { client.get(key, None).await }
        };
        self.repeat(ATTEMPT, call).await
    }

    /// Whether it is still the etcd, and the store, that was read up to this revision: in another one the watch
    /// would wait for a revision that means something else.
    async fn check_same(&self, after: u64) -> Result<(), Fault> {
        let found = self.epoch().await?;
        let created = found
            .kvs()
            .first()
            .map(etcd_client::KeyValue::create_revision);
        let same = created.is_some_and(|created| created <= number(after));
        if !same || revision(found.header())? < after {
            return Err(Fault::Compacted);
        }
        Ok(())
    }

    pub(super) async fn grant(&self, ttl: Duration) -> Result<LeaseId, Fault> {
        // etcd counts whole seconds; a little longer does no harm, since holders count for themselves.
        let seconds = ttl.as_millis().div_ceil(1_000);
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        let call = |mut client: Client| async move { client.lease_grant(seconds, None).await };
        Ok(LeaseId(self.repeat(ATTEMPT, call).await?.id()))
    }

    pub(super) async fn keep_alive(&self, lease: LeaseId) -> Result<(), Fault> {
        // The library sends the first renewal itself, and waits for its answer.
        let call = |mut client: Client| async move { client.lease_keep_alive(lease.0).await };
        self.members.attempt(RENEWAL, call).await.map(drop)
    }

    pub(super) async fn revoke(&self, lease: LeaseId) -> Result<(), Fault> {
        let call = |mut client: Client| async move { client.lease_revoke(lease.0).await };
        match self.repeat(ATTEMPT, call).await {
            Ok(_) | Err(Fault::NoLease) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    pub(super) async fn compact(&self, revision: u64) -> Result<(), Fault> {
        let call = |mut client: Client| async move { client.compact(number(revision), None).await };
        self.repeat(ATTEMPT, call).await.map(drop)
    }
}

/// What a connection is opened with; reads the files that the address names.
fn options(address: &address::Address) -> Result<ConnectOptions, String> {
    let mut options = ConnectOptions::new();
    if let Some((name, password)) = &address.user {
        options = options
            .with_user(name, password)
            .with_auto_token_refresh(true);
    }
    if address.is_secure() {
        options = options.with_tls(tls(&address.files)?);
    }
    Ok(options)
}

fn tls(files: &address::Files) -> Result<TlsOptions, String> {
    let mut options = match &files.ca {
        Some(ca) => TlsOptions::new().ca_certificate(Certificate::from_pem(read(ca)?)),
        None => TlsOptions::new().with_native_roots(),
    };
    if let (Some(cert), Some(key)) = (&files.cert, &files.key) {
        options = options.identity(Identity::from_pem(read(cert)?, read(key)?));
    }
    Ok(options)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
}

/// The first key after all that begin with the prefix, which ends with an ASCII character.
fn end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// As many records as fit a page, if the next ones are as large as those before.
fn next_limit(records: usize, bytes: usize) -> usize {
    let each = (bytes / records.max(1)).max(1);
    (PAGE_BYTES / each).clamp(1, LARGEST_PAGE)
}

fn number(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

fn revision(header: Option<&ResponseHeader>) -> Result<u64, Fault> {
    let revision = header.and_then(|header| u64::try_from(header.revision()).ok());
    revision.ok_or_else(|| Fault::Unavailable("etcd gave no revision".to_owned()))
}
