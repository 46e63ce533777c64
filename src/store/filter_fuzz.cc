// SPDX-License-Identifier: Apache-2.0
// Any text as a filter; what is taken is asked of a row that has little.
#include "base/bytes.h"
#include "base/check.h"
#include "store/filter.h"

namespace {

using namespace sally::store::filter;

constexpr Symbol kSymbols[] = {{"id"},
                               {"name"},
                               {"cost", Type::kNumber},
                               {"port", Type::kNumber},
                               {"createdAt", Type::kTime},
                               {"isAdmin", Type::kBool},
                               {"tags", Type::kTags},
                               {"roleAttributes", Type::kStrings},
                               {"services", Type::kLinks, nullptr}};
constexpr Schema kInner{kSymbols};
constexpr Symbol kOuterSymbols[] = {{"id"},
                                    {"name"},
                                    {"cost", Type::kNumber},
                                    {"createdAt", Type::kTime},
                                    {"isAdmin", Type::kBool},
                                    {"tags", Type::kTags},
                                    {"roleAttributes", Type::kStrings},
                                    {"services", Type::kLinks, &kInner}};
constexpr Schema kOuter{kOuterSymbols};

struct FuzzRow final : Row {
  [[nodiscard]] Value value(std::string_view symbol) const override {
    if (symbol == "name") return std::string("Cam");
    if (symbol == "cost") return 7.5;
    if (symbol == "createdAt") return Time{1'800'000'000'000};
    return {};
  }
  [[nodiscard]] std::vector<std::string> set(std::string_view) const override {
    return {"cam", "hall"};
  }
  void linked(std::string_view, const std::function<bool(const Row&)>& f) const override {
    if (f(*this)) (void)f(*this);
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = sally::as_text({data, size});
  const FuzzRow row;
  if (const auto q = parse(text, kOuter)) {
    (void)matches(q->where, row);
    SALLY_CHECK(compare(q->sort, row, row) == 0);
    SALLY_CHECK(q->sort.size() <= kMaxSortKeys);
  }
  if (const auto keys = parse_sort(text, kOuter)) SALLY_CHECK(!keys->empty());
  return 0;
}
