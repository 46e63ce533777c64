// SPDX-License-Identifier: Apache-2.0
// How many certificates a core of the controller renews: proof checked, issued, audited, durable on
// disk, as its pool does it. One JSON line.
#include <stdlib.h>

#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "base/clock.h"
#include "crypto/csr.h"
#include "crypto/test_pki.h"
#include "measure.h"
#include "pki/publish.h"
#include "pki/renew.h"
#include "trust/renewal.h"

namespace sally::bench {
namespace {

using crypto::must;

void ok(const Status& s) {
  if (s) return;
  std::fprintf(stderr, "%s\n", s.error().text().c_str());
  std::exit(1);
}

int run(const std::string& folder, std::size_t count, std::size_t batch) {
  const NetworkId net("n-bench.sally");
  const std::int64_t now = system_clock().unix_ms();
  std::string dir = folder + "/issue_XXXXXX";
  if (::mkdtemp(dir.data()) == nullptr) return 1;
  {
    const auto db = must(store::open_sqlite(dir + "/db", pki::store_hooks()));
    pki::AuthorityPtr authority;
    const auto key = must(crypto::FileKey::generate(crypto::KeyType::kP256));
    struct Device {
      std::string id, serial;
      Bytes envelope;
    };
    std::vector<Device> devices;
    {
      auto tx = must(db->begin(net, now));
      ok(tx->put_network({net.str(), "bench", "https://c:1280", now}));
      authority =
          must(pki::Authority::create(*tx, net, pki::KeyDir(dir + "/keys"), now, system_random()));
      for (std::size_t i = 0; i < count; ++i) {
        store::Identity row;
        row.id = row.name = "dev-" + std::to_string(i);
        ok(tx->put_identity(row));
        const auto leaf =
            must(authority->issue(*tx, {row.id, {}, {}}, key->public_key(), pki::Profile::kDevice,
                                  now, system_random(), pki::kRenewingLifeS))
                .leaf;
        wire::RenewalRequest r{.network = net.str(),
                               .id = row.id,
                               .serial = leaf.serial_hex(),
                               .csr = to_bytes(as_bytes(must(crypto::make_csr(*key, row.id)))),
                               .time_ms = now};
        devices.push_back({row.id, r.serial, must(trust::make_renewal(r, *key))});
      }
      ok(tx->audit("bench", "enroll", "all"));
      ok(tx->commit());
    }
    const pki::RenewalDoor door(authority);
    const auto before = CpuSample::now({});
    for (std::size_t at = 0; at < count; at += batch) {
      auto tx = must(db->begin(net, now));
      std::vector<pki::RenewalDoor::Request> requests;
      for (std::size_t i = at; i < std::min(count, at + batch); ++i)
        requests.push_back({devices[i].envelope, {devices[i].id, devices[i].serial}});
      for (auto& done : door.take_all(*tx, requests, now, system_random()))
        if (!must(std::move(done)).issued) return 1;
      ok(tx->commit());
    }
    const auto after = CpuSample::now({});
    Json json;
    json.add("count", std::uint64_t{count}).add("batch", std::uint64_t{batch});
    add_cpu(json, before, after);
    std::puts(json.text().c_str());
  }
  std::filesystem::remove_all(dir);
  return 0;
}

}  // namespace
}  // namespace sally::bench

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: bench_issue FOLDER COUNT BATCH\n");
    return 2;
  }
  return sally::bench::run(argv[1], std::strtoul(argv[2], nullptr, 10),
                           std::strtoul(argv[3], nullptr, 10));
}
