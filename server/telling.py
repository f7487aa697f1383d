"""What a person sees of a round while a run goes on."""

from fedrec.privacy.plan import PrivacyPlan
from server.strategy import RoundRecord


def round_text(record: RoundRecord, plan: PrivacyPlan) -> str:
    """Public facts of the last round, for beside a progress bar."""
    parts = [f"{record.admitted}/{record.asked} clients"]
    if record.void:
        parts.append("void")
    if (quality := record.measures.get("panel_ndcg@10")) is not None:
        parts.append(f"panel NDCG@10 {quality:.4f}")
    if plan.private and record.epsilon_spent is not None:
        parts.append(f"epsilon {record.epsilon_spent:.2f} of {plan.epsilon:g}")
    if not plan.private:
        parts.append("NOT PRIVATE")
    return ", ".join(parts)
