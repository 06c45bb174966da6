#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""tools/check.d/read-results: the reason of a failure is its first cause, and the summary shows what was printed about it."""

import os
import subprocess
import sys
import tempfile
import unittest
from xml.sax.saxutils import escape

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tools/check.d/read-results")

# What a stress test printed in CI: the leak is only what the ended test left behind.
LEAKY = """\
BVMM_TEST_SEED=4711 share=0.25
[==========] Running 3 test(s).
[ RUN      ] eight_senders_lose_nothing
6000000 messages, 784 sleeps of the receiver
[       OK ] eight_senders_lose_nothing
[ RUN      ] without_a_word
[       OK ] without_a_word
[ RUN      ] no_wakeup_of_a_sender_is_lost
2000000 messages, 1304 times full, 1149 sleeps for room
[  ERROR   ] --- w->senders[0].stats.wakeups > messages / 200
[   LINE   ] --- /work/main/tests/stress/test_mailbox.c:791: error: Failure!
[  FAILED  ] no_wakeup_of_a_sender_is_lost
[ RUN      ] quiet_costs_nothing
[  ERROR   ] --- 0x3 != 0x4
[   LINE   ] --- /work/main/tests/stress/test_mailbox.c:860: error: Failure!
[  FAILED  ] quiet_costs_nothing
[==========] 3 test(s) run.
[  PASSED  ] 1 test(s).
[  FAILED  ] 2 test(s), listed below:
[  FAILED  ] no_wakeup_of_a_sender_is_lost
[  FAILED  ] quiet_costs_nothing

 2 FAILED TEST(S)

=================================================================
==26670==ERROR: LeakSanitizer: detected memory leaks

""" + "Direct leak of 88 byte(s) in 1 object(s) allocated from:\n    #0 0x7f6f698b89cf in malloc\n\n" * 40 + """\
SUMMARY: AddressSanitizer: 88360 byte(s) leaked in 21 allocation(s).
"""

OVERFLOW = """\
[==========] Running 1 test(s).
[ RUN      ] good
==1==ERROR: AddressSanitizer: heap-buffer-overflow on address 0x1
""" + "    #0 0x1 in somewhere\n" * 60 + """\
SUMMARY: AddressSanitizer: heap-buffer-overflow src/base/x.c:7 in copy
==1==ABORTING
"""

SKIPS = """\
[ RUN      ] first
skipped: it was a cold day
[  SKIPPED ] first
[ RUN      ] second
[  SKIPPED ] second
[ RUN      ] third
skipped: it rained
[  SKIPPED ] third
[  SKIPPED ] 3 test(s), listed below:
"""

UNITTEST = """\
test_good (test_image.Pull.test_good) ... ok
test_late (test_image.Pull.test_late)
It is in time. ... FAIL
test_wrong (test_image.Pull.test_wrong) ... ERROR

======================================================================
ERROR: test_wrong (test_image.Pull.test_wrong)
----------------------------------------------------------------------
Traceback (most recent call last):
  File "test_image.py", line 9, in test_wrong
    int("x")
ValueError: invalid literal for int() with base 10: 'x'

======================================================================
FAIL: test_late (test_image.Pull.test_late)
It is in time.
----------------------------------------------------------------------
Traceback (most recent call last):
  File "test_image.py", line 5, in test_late
    self.assertLess(7, 5, "late")
AssertionError: 7 not less than 5 : late

----------------------------------------------------------------------
Ran 3 tests in 0.1s

FAILED (failures=1, errors=1)
"""

LINES = """\
ok: unit_blk
FAILED: unit_mailbox: status 1
    BVMM_TEST_SEED=12 share=0.002
    [ RUN      ] spinning_is_bounded
    [  ERROR   ] --- spins > 0
    [   LINE   ] --- /work/main/tests/unit/test_mailbox.c:595: error: Failure!
    [  FAILED  ] spinning_is_bounded
skipped: kvm_vcpu: the guest's code is for x86_64
FAILED: the lab: it did not start
"""


class Results(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.addCleanup(self.dir.cleanup)

    def at(self, name):
        return os.path.join(self.dir.name, name)

    def put(self, name, text):
        with open(self.at(name), "w", encoding="utf-8") as file:
            file.write(text)

    def call(self, *words, status=0):
        done = subprocess.run([sys.executable, "-B", SCRIPT, *words], stdout=subprocess.PIPE, text=True, check=False)
        self.assertEqual(done.returncode, status, done.stdout)
        return done.stdout

    def read(self, kind, text, name="input"):
        """The rows; the summary of them is in self.summary afterwards."""
        self.put(name, text)
        rows = self.call(kind, "part", self.at(name), self.at("part.excerpts"))
        self.put("part.tsv", rows)
        self.summary = self.call("summary", self.dir.name, status=1 if "failed\t" in rows else 0)
        return {row[2]: (row[0], row[3]) for row in (line.split("\t") for line in rows.splitlines())}

    def junit(self, *cases):
        body = "".join(f'<testcase name="{name}" time="3.2" status="{status}">{more}<system-out>{escape(output)}</system-out>'
                       f"</testcase>" for name, status, more, output in cases)
        return self.read("junit", f"<testsuite>{body}</testsuite>", "dev.xml")

    def test_the_assertion_is_the_reason_and_not_the_leak(self):
        status, reason = self.junit(("stress_mailbox", "fail", '<failure message=""/>', LEAKY))["stress_mailbox"]
        self.assertEqual(status, "failed")
        self.assertTrue(reason.startswith(
            "no_wakeup_of_a_sender_is_lost: w->senders[0].stats.wakeups > messages / 200 (stress/test_mailbox.c:791) "
            "[BVMM_TEST_SEED=4711]; quiet_costs_nothing: 0x3 != 0x4 (stress/test_mailbox.c:860)"), reason)
        self.assertNotIn("leaked", reason)

    def test_the_summary_shows_what_stands_around_the_assertion(self):
        self.junit(("stress_mailbox", "fail", '<failure message=""/>', LEAKY), ("unit_x", "fail", "", "nothing of interest\n"))
        before, _, after = self.summary.partition("\nfailed:\n")
        self.assertIn("--- part: stress_mailbox\n    BVMM_TEST_SEED=4711", before)
        for line in ("1149 sleeps for room", "[  ERROR   ] --- w->senders[0]", "test_mailbox.c:791", "test_mailbox.c:860"):
            self.assertIn(line, before)
        self.assertNotIn("without_a_word", before)
        self.assertLess(before.count("\n"), 70, "an excerpt, not all of it")
        self.assertIn("--- part: unit_x\n    nothing of interest\n", before)
        self.assertIn("stress_mailbox: no_wakeup_of_a_sender_is_lost", after)
        self.assertTrue(self.summary.endswith("\n0 passed, 2 failed, 0 skipped\n"))

    def test_a_leak_alone_is_a_reason(self):
        output = "[  PASSED  ] 1 test(s).\n" + LEAKY[LEAKY.index("====\n"):]
        self.assertIn("88360 byte(s) leaked", self.junit(("leaks", "fail", "", output))["leaks"][1])

    def test_another_finding_of_a_sanitizer_is_told_too(self):
        found = self.junit(("overflow", "fail", "", OVERFLOW), ("both", "fail", "", LEAKY[:LEAKY.index("====\n==26")] + OVERFLOW))
        self.assertIn("heap-buffer-overflow src/base/x.c:7 in copy", found["overflow"][1])
        self.assertIn("no_wakeup_of_a_sender_is_lost", found["both"][1])
        self.assertIn("heap-buffer-overflow", found["both"][1])

    def test_what_ctest_says(self):
        self.put("dev.txt", "The following tests FAILED:\n\t  1 - slow (Timeout)\n\t 12 - crash (SEGFAULT)\n\t  3 - plain (Failed)\n")
        found = self.junit(("slow", "fail", "", ""), ("crash", "fail", "", "hello\n"), ("plain", "fail", "", "why\n"))
        self.assertEqual(found, {"slow": ("failed", "Timeout after 3 s: it said nothing"),
                                 "crash": ("failed", "SEGFAULT after 3 s: hello"), "plain": ("failed", "why")})

    def test_the_watchdog_is_a_reason(self):
        output = "[ RUN      ] slow\n\nwatchdog: hung in test slow: all sleep, and nobody is woken\n"
        self.assertIn("hung in test slow", self.junit(("stress", "fail", "", output))["stress"][1])

    def test_a_program_that_is_not_there_failed(self):
        skipped = '<skipped message="{}"/>'
        found = self.junit(("gone", "notrun", skipped.format("Unable to find executable"), "Unable to find executable: /x"),
                           ("left_out", "notrun", skipped.format("SKIP_RETURN_CODE=77"), "skipped: no KVM\n"))
        self.assertEqual(found["gone"], ("failed", "Unable to find executable: /x"))
        self.assertEqual(found["left_out"], ("skipped", "no KVM"))

    def test_each_skipped_test_has_its_own_reason(self):
        found = self.junit(("unit", "run", "", SKIPS))
        self.assertEqual(found["unit"], ("passed", ""))
        self.assertEqual(found["unit: first"], ("skipped", "it was a cold day"))
        self.assertEqual(found["unit: third"], ("skipped", "it rained"))
        self.assertEqual(found["unit: second"], ("skipped", "see the log"))

    def test_unittest(self):
        found = self.read("unittest", UNITTEST)
        self.assertEqual(found["test_image: test_good"], ("passed", ""))
        self.assertEqual(found["test_image: test_late"], ("failed", "FAIL: AssertionError: 7 not less than 5 : late"))
        self.assertEqual(found["test_image: test_wrong"][1],
                         "ERROR: ValueError: invalid literal for int() with base 10: 'x'")
        self.assertIn('self.assertLess(7, 5, "late")', self.summary)
        self.assertIn('int("x")', self.summary)

    def test_lines_with_what_belongs_to_them(self):
        found = self.read("lines", LINES)
        self.assertEqual(found["unit_blk"], ("passed", ""))
        self.assertEqual(found["kvm_vcpu"], ("skipped", "the guest's code is for x86_64"))
        self.assertEqual(found["the lab"], ("failed", "it did not start"))
        self.assertEqual(found["unit_mailbox"], ("failed", "status 1: spinning_is_bounded: spins > 0 (unit/test_mailbox.c:595) "
                                                           "[BVMM_TEST_SEED=12]"))
        self.assertIn("    [  ERROR   ] --- spins > 0\n", self.summary)

    def test_any_text(self):
        self.put("text", "x.c:7:3: error: 'y' undeclared\n" + "more\n" * 500)
        self.put("part.tsv", "failed\tpart\tbuild\tstatus 1; see the log\n")
        self.call("text", "part", self.at("text"), self.at("part.excerpts"), "build")
        summary = self.call("summary", self.dir.name, status=1)
        self.assertIn("--- part: build\n    x.c:7:3: error: 'y' undeclared\n", summary)
        self.assertLess(summary.count("\n"), 60)


if __name__ == "__main__":
    unittest.main()
