// SPDX-License-Identifier: Apache-2.0
#pragma once

// For tests of this folder.
#include <boost/json.hpp>
#include <memory>
#include <string>
#include <vector>

#include "base/fs.h"
#include "crypto/test_pki.h"
#include "tls/context.h"

namespace sally::controller {

/// An identity file, read.
struct TestIdentity {
  explicit TestIdentity(const std::string& path) {
    const auto text = crypto::must(fs::read_text(path));
    const auto v = boost::json::parse(text);
    key = crypto::must(crypto::FileKey::from_pem(std::string(v.at("id").at("key").as_string())));
    chain = crypto::must(
        crypto::Certificate::list_from_pem(std::string(v.at("id").at("cert").as_string())));
    ca = crypto::must(
        crypto::Certificate::list_from_pem(std::string(v.at("id").at("ca").as_string())));
    network = std::string(v.at("sally").at("network").as_string());
    id = std::string(v.at("sally").at("id").as_string());
  }
  std::shared_ptr<const tls::Context> context(const std::string& alpn) const {
    tls::ContextOptions o;
    o.chain = chain;
    o.key = key;
    o.anchors = {ca[0]};
    o.issuing = {ca[1], ca[2]};
    o.network = NetworkId(network);
    o.roles = {tls::Role::kController};
    o.alpn = {alpn};
    return crypto::must(tls::Context::create(std::move(o)));
  }
  crypto::FileKeyPtr key;
  std::vector<crypto::Certificate> chain, ca;
  std::string network, id;
};

}  // namespace sally::controller
