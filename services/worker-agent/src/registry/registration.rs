//! Registering: with the join token at first, with the credential ever after, and with all that
//! runs here, so that a registry that was restored from a backup learns of it.

use std::io;

use muster_proto::types::v1::{CapacityType, Price};
use muster_proto::workers::v1::{Allocation, AllocationState, HeldAllocation, HeldPhase};

use super::*;
use crate::data_dir::Identity;
use crate::machine;
use crate::view::Seen;

/// Who holds every allocation that an assignment comes with.
const OWNER: &str = "replica-manager";

impl Registry {
    /// Registers, however long it takes; nothing if the agent is to leave before.
    pub(super) async fn register(&mut self, boot_id: &str, leave: &mut Leave) -> Option<Taken> {
        let mut trouble = Backoff::new(self.shared.config.retry, backoff::seed(boot_id));
        loop {
            let outcome = tokio::select! {
                outcome = self.try_register(boot_id) => outcome,
                Some(done) = leave.recv() => {
                    let _ = done.send(());
                    return None;
                }
            };
            match outcome {
                Ok(registered) => return Some(registered),
                Err(status) => {
                    self.check
                        .failed(format!("cannot register: {}", status.message()));
                    if trouble.failures() == 0 {
                        tracing::warn!(code = ?status.code(), error = status.message(), "cannot register");
                    }
                    if Details::of(&status).is(ErrorReason::CredentialInvalid) {
                        self.present_otherwise();
                    }
                }
            }
            tokio::select! {
                () = sleep(trouble.next_delay()) => {}
                Some(done) = leave.recv() => {
                    let _ = done.send(());
                    return None;
                }
            }
        }
    }

    /// The credential is not valid: a registry that was made anew takes a join token instead. Or
    /// the other way round, if it was the token that was not taken.
    fn present_otherwise(&mut self) {
        self.presented = !self.presented;
        match self.shared.data.credential() {
            Ok(Some(credential)) if self.presented => {
                // It was set before, so it can stand in a header.
                let _ = self.credential.set(&credential);
            }
            Ok(_) | Err(_) => self.credential.clear(),
        }
    }

    /// What this process names itself: as the last one did if it is not known to have kept what it was
    /// given. So the two are one to the registry, which takes a token for one use from the same again.
    pub(super) fn boot_id(&self) -> String {
        match self.shared.data.boot_id() {
            Ok(Some(boot_id)) if !boot_id.is_empty() => boot_id,
            Ok(_) | Err(_) => random_id(),
        }
    }

    async fn try_register(&mut self, boot_id: &str) -> Result<Taken, Status> {
        let failed = |what: &str, error: &io::Error| {
            Status::internal(format!("cannot keep {what}: {error}"))
        };
        if !self.presented || !matches!(self.shared.data.credential(), Ok(Some(_))) {
            let kept = self.shared.data.set_boot_id(boot_id);
            kept.map_err(|error| failed("who registers", &error))?;
        }
        let request = self.request(boot_id);
        let said = request.capacity.clone().unwrap_or_default();
        let mut request = Request::new(request);
        request.set_timeout(REGISTER_DEADLINE);
        let answer = self.client.register_worker(request).await?.into_inner();
        let registered = self.registered(&answer, &said);
        registered.map_err(|error| failed("the credential", &error))
    }

    fn request(&self, boot_id: &str) -> RegisterWorkerRequest {
        let config = &self.shared.config;
        let last_generation = self.last_generation();
        let capacity_type = if config.spot {
            CapacityType::Spot
        } else {
            CapacityType::OnDemand
        };
        RegisterWorkerRequest {
            name: config.name.clone(),
            boot_id: boot_id.to_owned(),
            join_token: self.join_token(),
            last_generation,
            capacity: Some(MachineCapacity::clone(&self.shared.standing.capacity())),
            agent_labels: config.labels.clone(),
            capacity_type: capacity_type.into(),
            price: config.price.map(|price| Price {
                micro_usd_per_hour: price.0,
            }),
            backend: config.backend.clone(),
            region: config.region.clone(),
            zone: config.zone.clone(),
            agent_version: self.shared.context.identity.version.to_owned(),
            agent_address: self.reached.address.clone(),
            advertise_host: self.reached.host.clone(),
            held: self.held(last_generation),
        }
    }

    /// The last that the registry is known to have given, before this process or in it.
    fn last_generation(&self) -> i64 {
        let kept = self.shared.data.identity();
        let kept = kept.map_or(0, |identity| identity.generation);
        kept.max(self.shared.standing.generation())
    }

    /// The join token as its file has it now; nothing if there is no file.
    fn join_token(&self) -> String {
        let Some(path) = &self.shared.config.join_token_file else {
            return String::new();
        };
        match std::fs::read_to_string(path) {
            Ok(token) => token.trim().to_owned(),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the join token cannot be read");
                String::new()
            }
        }
    }

    /// All that is on the machine, with what it takes to make its records anew.
    fn held(&self, generation: i64) -> Vec<HeldAllocation> {
        let view = self.shared.view.borrow();
        let mut held = view.held.clone();
        for one in &mut held {
            let of_it = |seen: &&Arc<Seen>| seen.report.allocation_id == one.allocation_id;
            if one.phase() != HeldPhase::Ended
                && let Some(seen) = view.attempts.values().find(of_it)
            {
                one.record = Some(self.allocation_record(seen, generation));
            }
        }
        held
    }

    /// Its term stays unknown, since nobody tells agents; what was taken from an earlier generation is not
    /// here any more, so that it is of the last.
    fn allocation_record(&self, seen: &Seen, generation: i64) -> Allocation {
        let assignment = &seen.assignment;
        let ports = assignment.run.iter().flat_map(|run| &run.ports);
        Allocation {
            id: assignment.allocation_id.clone(),
            worker: self.shared.config.name.clone(),
            worker_generation: generation,
            state: AllocationState::Held.into(),
            owner: OWNER.to_owned(),
            subject: assignment.replica.clone(),
            gpu_uuids: assignment.gpu_uuids.clone(),
            cpu_milli: assignment.cpu_milli,
            memory_mib: assignment.memory_mib,
            host_ports: ports
                .filter(|port| port.host_port)
                .map(|port| port.number)
                .collect(),
            fencing_token: assignment.fencing_token.clone(),
            replaces: assignment.replaces_allocation.clone(),
            stop_grace: assignment.stop.as_ref().and_then(|stop| stop.grace),
            project: assignment.project.clone(),
            ..Allocation::default()
        }
    }

    /// Keeps what the registry has given: from now on we are this generation.
    fn registered(
        &self,
        answer: &RegisterWorkerResponse,
        said: &MachineCapacity,
    ) -> io::Result<Taken> {
        let worker = answer.worker.clone().unwrap_or_default();
        self.keep(&answer.credential, worker.generation)?;
        self.shared.standing.set_registered(Some(Registered {
            generation: worker.generation,
            revoked_through: worker.revoked_through,
            state: worker.state(),
            beaten: false,
        }));
        self.shared.standing.note_registry(None);
        self.shared.measures.note_registration();
        tracing::info!(
            generation = worker.generation,
            state = worker.state().as_str_name(),
            "registered"
        );
        // It keeps what a call said that it took for a repeated one: then it is told once more.
        let gpus = worker.capacity.as_ref().map_or_else(|| uuids(said), uuids);
        Ok(Taken {
            terms: Terms::parse(answer.terms.as_ref()),
            epoch: answer.epoch.clone(),
            gpus,
        })
    }

    fn keep(&self, credential: &str, generation: i64) -> io::Result<()> {
        let data = &self.shared.data;
        if !credential.is_empty() {
            // Written only if it is another: the disk may take nothing.
            if data.credential()?.as_deref() != Some(credential) {
                data.set_credential(credential)?;
            }
            self.credential.set(credential).map_err(io::Error::other)?;
        }
        let identity = Identity {
            name: self.shared.config.name.clone(),
            generation,
        };
        // What runs here needs an agent more than a registry that was put back needs the number.
        if let Err(error) = data.set_identity(&identity) {
            tracing::warn!(%error, generation, "the generation is not kept");
        }
        // Left, it makes the next process the same to the registry as this one: nobody is the worse for it.
        let _ = data.remove_boot_id();
        Ok(())
    }
}

/// 32 random hexadecimal digits.
fn random_id() -> String {
    let word = || {
        getrandom::u64().unwrap_or_else(|_| {
            // Without randomness the time since boot still tells two processes of one machine apart.
            u64::try_from(machine::since_boot().as_nanos()).unwrap_or(0)
        })
    };
    format!("{:016x}{:016x}", word(), word())
}
