"""All breakages by name: the rule's number first.

Where two rules cover for each other, both are taken away together under a name of their own, and the single ones are
in `COVERED`: what they leave broken nobody can notice.  docs/decisions/0005-what-the-checkers-catch.md argues each.

Not here: which runs notice them (`tests/sim/test_checkers_bite.py`).
"""

from __future__ import annotations

from collections.abc import Mapping

from holdfast_server.testing.sim.broken import Breakage, accepting, deciding, repairing, serving

BREAKAGES: Mapping[str, Breakage] = {
    "1 acknowledged one short of W": deciding.acknowledged_one_short,
    "1 marks prove nothing": deciding.marks_prove_nothing,
    "1 reduced versions need the set's copies": deciding.reduced_versions_need_the_sets_copies,
    "2 acknowledged before all have answered": deciding.answered_at_the_quorum,
    "3 an empty replacement votes": deciding.an_empty_replacement_votes,
    "3 a replacement's fence counts": deciding.a_replacements_fence_counts,
    "4 one denial suffices": deciding.one_denial_suffices,
    "4 undecided is served": deciding.undecided_is_served,
    "5 repairs go over leases": accepting.repairs_go_over_leases,
    "5 repairs go over fences": accepting.repairs_go_over_fences,
    "5 repairs go over everything": accepting.repairs_go_over_everything,
    "6 stamped anew after acceptance": deciding.restamped_after_acceptance,
    "6 old stamps are taken": accepting.old_stamps_are_taken,
    "7 leases keep nobody out": accepting.leases_keep_nobody_out,
    "7 a lapsed lease still commits": accepting.a_lapsed_lease_still_commits,
    "8 no fence before taking back": repairing.no_fence_before_taking_back,
    "8 fences that fail are ignored": repairing.fences_that_fail_are_ignored,
    "8 no deadline before taking back": repairing.no_deadline_before_taking_back,
    "8 taken back by counting": repairing.taken_back_by_count,
    "8 reduced versions need the set's denials": deciding.reduced_versions_need_the_sets_denials,
    "9 repairs go over watermarks": accepting.repairs_go_over_watermarks,
    "10 dropped before all agree": repairing.dropped_before_all_agree,
    "10 dropped at once": repairing.dropped_at_once,
    "10 drops leave high watermarks": repairing.drops_leave_high_watermarks,
    "10 drops rest on unsynced words": repairing.drops_rest_on_unsynced_words,
    "10 what is gone leaves high watermarks": repairing.what_is_gone_leaves_high_watermarks,
    "11 full although something is left": repairing.full_although_something_is_left,
    "11 replacements know no before": repairing.replacements_know_no_before,
    "12 objects are kept by the bucket's name": serving.objects_are_kept_by_the_buckets_name,
    "12 nobody lets go of a bucket": serving.nobody_lets_go_of_a_bucket,
    "12 silent pods are not waited for": serving.silent_pods_are_not_waited_for,
    "12 leases do not lapse": serving.leases_do_not_lapse,
    "12 fences do not wait for confirmed writes": serving.fences_do_not_wait_for_confirmed_writes,
    "13 reads do not start again": serving.reads_do_not_start_again,
    "13 superseded shards go at once": serving.superseded_shards_go_at_once,
    "- commits are not synced": accepting.commits_are_not_synced,
}

COVERED: Mapping[str, Breakage] = {
    "1 marks do not speak for the drive": deciding.marks_do_not_speak_for_drives,
    "9 dropped tombstones are written again": accepting.dropped_tombstones_are_written_again,
    "11 replacements join at once": repairing.replacements_join_at_once,
    "11 replacements have no watermark": repairing.replacements_have_no_watermark,
}
"""Broken alone they break nothing: another rule, or the rest of the same one, does their work."""
