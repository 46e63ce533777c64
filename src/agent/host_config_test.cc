// SPDX-License-Identifier: Apache-2.0
#include "agent/host_config.h"

#include <gtest/gtest.h>

#include "agent/errors.h"

namespace sally::agent {
namespace {

TEST(HostConfig, OneTcpAddress) {
  const auto t = parse_host_config(
      R"({"protocol":"tcp","address":"::1","port":1883,"listenOptions":{"connectTimeoutSeconds":2}})");
  ASSERT_TRUE(t);
  EXPECT_EQ(t->address.str(), "[::1]:1883");
  EXPECT_EQ(t->connect_ms, 2'000);
}

TEST(HostConfig, WhatWeDoNotServeIsRefusedByName) {
  const std::pair<const char*, const char*> bad[] = {
      {"", "not a JSON object"},
      {"[]", "not a JSON object"},
      {R"({"address":"a","port":1})", "protocol"},
      {R"({"protocol":"udp","address":"a","port":1})", "protocol"},
      {R"({"protocol":"tcp","port":1})", "address"},
      {R"({"protocol":"tcp","address":"a","port":0})", "port"},
      {R"({"protocol":"tcp","address":"a","port":65536})", "port"},
      {R"({"protocol":"tcp","address":"a","port":1.5})", "port"},
      {R"({"protocol":"tcp","address":"a","port":1,"forwardPort":true})", "forwardPort"},
      {R"({"protocol":"tcp","address":"a\u0000b","port":1})", "address"},
      {R"({"protocol":"tcp","address":"a","port":1,"listenOptions":{"connectTimeoutSeconds":0}})",
       "connectTimeoutSeconds"}};
  for (const auto& [json, names] : bad) {
    const auto t = parse_host_config(json);
    ASSERT_FALSE(t) << json;
    EXPECT_TRUE(t.error().is(Errc::kHostConfig));
    EXPECT_NE(t.error().context().find(names), std::string::npos) << t.error().context();
  }
}

}  // namespace
}  // namespace sally::agent
