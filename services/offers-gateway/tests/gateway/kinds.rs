//! Every kind of backend that is asked over HTTP, and what its provider answers: one machine with
//! eight H100, in the shape of each.

use offers_gateway::spec::{Api, Cloud, Key, Kind, Place, Provider as Whose, Secret, Spec};

use crate::provider::{Asked, Fault, Provider, Script};

/// A key that must never be seen.
pub(crate) const KEY: &str = "k3y-that-nobody-may-see";

/// A kind that is asked over HTTP.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Played {
    pub(crate) name: &'static str,
    pub(crate) script: Script,
    kind: fn(&Provider) -> Kind,
    /// The offer that there is when all is well.
    pub(crate) offer: &'static str,
}

impl Played {
    /// A provider, and the backend that asks it.
    pub(crate) fn start(self, fault: Fault) -> (Provider, Spec) {
        let provider = Provider::start(self.script, fault);
        let spec = Spec::new(self.name, (self.kind)(&provider));
        (provider, spec)
    }
}

fn api(whose: Whose, provider: &Provider) -> Kind {
    let base = provider.url("/api").parse().unwrap();
    Kind::Api(Api::new(whose, base, Key::Known(Secret::new(KEY).unwrap())))
}

const JSON: &str = "application/json; charset=utf-8";

pub(crate) const KINDS: [Played; 8] = [
    Played {
        name: "catalog",
        script: Script {
            content_type: "text/csv",
            right: |_| {
                "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Price,Region\nbig,H100,8,96,1900,20,eu\n".to_owned()
            },
            wrong: "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Price,Region\nbig,H100,eight,many,much,dear,eu\n",
        },
        kind: |provider| Kind::Catalog(Place::Url(provider.url("/vms.csv").parse().unwrap())),
        offer: "catalog/eu/big/ondemand",
    },
    Played {
        name: "gpuhunt",
        script: Script {
            content_type: "application/octet-stream",
            right: |_| {
                "instance_name,location,price,cpu,memory,gpu_count,gpu_name,gpu_memory,spot\nbig,eu,20,96,1900,8,H100,80,False\n".to_owned()
            },
            wrong: "instance_name,location,price,cpu,memory,gpu_count,gpu_name,gpu_memory,spot\nbig,eu,dear,many,much,eight,H100,80,never\n",
        },
        kind: |provider| Kind::Gpuhunt(Place::Url(provider.url("/gpuhunt.csv").parse().unwrap())),
        offer: "gpuhunt/eu/big/ondemand",
    },
    Played {
        name: "vastai",
        script: Script {
            content_type: JSON,
            right: |_| {
                r#"{"offers":[{"id":7,"num_gpus":8,"gpu_name":"H100 SXM","gpu_ram":81559,"cpu_cores_effective":96,"cpu_ram":1900000,
                "disk_space":100,"storage_cost":0.1,"dph_base":19.5,"min_bid":9,"geolocation":"Oslo, NO","rentable":true,"rented":false}]}"#.to_owned()
            },
            wrong: r#"{"offers":[{"id":[],"num_gpus":"eight","dph_base":{}}]}"#,
        },
        kind: |provider| api(Whose::Vastai, provider),
        offer: "vastai/Oslo%2C%20NO/7/ondemand",
    },
    Played {
        name: "runpod",
        script: Script {
            content_type: JSON,
            right: runpod,
            wrong: r#"{"data":{"gpuTypes":"H100","dataCenters":7,"n1":[7]}}"#,
        },
        kind: |provider| api(Whose::Runpod(Cloud::Secure), provider),
        offer: "runpod/EU-RO-1/8x%20NVIDIA%20H100/ondemand",
    },
    Played {
        name: "runpod-community",
        script: Script {
            content_type: JSON,
            right: runpod,
            wrong: r#"{"data":{"gpuTypes":"H100","countryCodes":7,"n1":[7]}}"#,
        },
        kind: |provider| api(Whose::Runpod(Cloud::Community), provider),
        offer: "runpod-community/NO/8x%20NVIDIA%20H100/ondemand",
    },
    Played {
        name: "lambda",
        script: Script {
            content_type: JSON,
            right: |_| {
                r#"{"data":{"gpu_8x_h100":{"instance_type":{"name":"gpu_8x_h100","description":"8x H100 (80 GB SXM5)","price_cents_per_hour":2392,
                "specs":{"vcpus":208,"memory_gib":1800,"storage_gib":22000}},"regions_with_capacity_available":[{"name":"eu"}]}}}"#.to_owned()
            },
            wrong: r#"{"data":{"gpu_8x_h100":{"instance_type":"big","regions_with_capacity_available":7}}}"#,
        },
        kind: |provider| api(Whose::Lambda, provider),
        offer: "lambda/eu/gpu_8x_h100/ondemand",
    },
    Played {
        name: "digitalocean",
        script: Script {
            content_type: JSON,
            right: digitalocean,
            wrong: r#"{"sizes":[{"slug":7.5,"price_hourly":"dear","regions":"everywhere"}]}"#,
        },
        kind: |provider| api(Whose::Digitalocean, provider),
        offer: "digitalocean/nyc2/gpu-h100x8-640gb/ondemand",
    },
    Played {
        name: "vultr",
        script: Script {
            content_type: JSON,
            right: vultr,
            wrong: r#"{"plans":[{"id":"x","ram":"much"}],"plans_metal":[7],"available_plans":[]}"#,
        },
        kind: |provider| api(Whose::Vultr, provider),
        offer: "vultr/ewr/vcg-h100/ondemand",
    },
];

/// First what there is, then what the one data centre or country sells, by the number of
/// accelerators.
fn runpod(asked: &Asked) -> String {
    if asked.body.contains("dataCenters") {
        return r#"{"data":{"gpuTypes":[{"id":"NVIDIA H100","maxGpuCountSecureCloud":8}],"dataCenters":[{"id":"EU-RO-1","listed":true},{"id":"US-1","listed":true}]}}"#.to_owned();
    }
    if asked.body.contains("countryCodes") {
        return r#"{"data":{"gpuTypes":[{"id":"NVIDIA H100","maxGpuCountCommunityCloud":8}],"countryCodes":[null,"NO","SE"]}}"#.to_owned();
    }
    let none = r#"[{"id":"NVIDIA H100","displayName":"H100 SXM","memoryInGb":80,"lowestPrice":{"uninterruptablePrice":null,"stockStatus":null}}]"#;
    let some = r#"[{"id":"NVIDIA H100","displayName":"H100 SXM","memoryInGb":80,"lowestPrice":{"uninterruptablePrice":2.7,"minVcpu":96,"minMemory":1900,"stockStatus":"Low"}}]"#;
    let where_sold = [
        r#"secureCloud:true,dataCenterId:\"EU-RO-1\""#,
        r#"secureCloud:false,countryCode:\"NO\""#,
    ];
    let sold = match where_sold.iter().any(|place| asked.body.contains(place)) {
        true => some,
        false => none,
    };
    let aliases: Vec<String> = (1..=8)
        .map(|count| format!("\"n{count}\":{}", if count == 8 { sold } else { none }))
        .collect();
    format!("{{\"data\":{{{}}}}}", aliases.join(","))
}

/// Two pages, of which the second has the machine.
fn digitalocean(asked: &Asked) -> String {
    if !asked.path.contains("page=2") {
        return r#"{"sizes":[],"links":{"pages":{"next":"https://api.example.org/v2/sizes?page=2&per_page=500"}}}"#.to_owned();
    }
    r#"{"sizes":[{"slug":"gpu-h100x8-640gb","price_hourly":23.92,"vcpus":160,"memory":1966080,"disk":2046,"available":true,"regions":["nyc2"],
        "gpu_info":{"count":8,"model":"nvidia_h100","vram":{"amount":640,"unit":"gib"}}}],"links":{}}"#.to_owned()
}

/// Two lists, of which the first has two pages, and what each region has capacity for.
fn vultr(asked: &Asked) -> String {
    let path = asked.path.as_str();
    if path.contains("/availability") {
        return r#"{"available_plans":["vcg-h100"]}"#.to_owned();
    }
    if path.contains("/plans-metal") {
        return r#"{"plans_metal":[],"meta":{"links":{"next":""}}}"#.to_owned();
    }
    if !path.contains("cursor=") {
        return r#"{"plans":[],"meta":{"links":{"next":"bmV4dA=="}}}"#.to_owned();
    }
    r#"{"plans":[{"id":"vcg-h100","vcpu_count":96,"ram":1966080,"disk":1000,"hourly_cost":23.9,"gpu_type":"NVIDIA_H100","gpu_vram_gb":640,
        "locations":["ewr"]}],"meta":{"links":{"next":""}}}"#.to_owned()
}
