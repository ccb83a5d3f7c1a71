// rapidcheck with a number of cases of one's own: check_property(3000, [] { ... RC_ASSERT(...); }).
// RC_PARAMS (e.g. "seed=7 max_success=100000") wins where it is set.
#pragma once

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <cstdlib>
#include <sstream>

namespace attnmux {

template <class Property>
void check_property(int cases, Property&& property) {
  const ::testing::TestInfo* test = ::testing::UnitTest::GetInstance()->current_test_info();
  rc::detail::TestMetadata metadata;
  metadata.id = std::string(test->test_suite_name()) + "/" + test->name();
  rc::detail::TestParams params = rc::detail::configuration().testParams;
  if (std::getenv("RC_PARAMS") == nullptr) {
    params.maxSuccess = cases;
    params.seed = 20240229;  // the same cases in every run; another seed through RC_PARAMS
  }
  const rc::detail::TestResult result = rc::detail::checkTestable(property, metadata, params);
  if (result.template is<rc::detail::SuccessResult>()) return;
  std::ostringstream text;
  rc::detail::printResultMessage(result, text);
  FAIL() << text.str();
}

}  // namespace attnmux
