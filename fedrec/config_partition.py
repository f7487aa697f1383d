"""Settings of who is a client and who is not; a section of ``fedrec.config.Config``."""

from typing import Annotated

from pydantic import Field

from fedrec.config_section import Count, Fraction, Positive, Section


class PartitionConfig(Section):
    """Who is a client, and who stands for public data."""

    scheme: str = Field(
        "even",
        pattern=r"^(even|dirichlet|by-column:.+)$",
        description="even | dirichlet | by-column:COLUMN, of the events or the items (a brand: what was bought of it)",
    )
    clients: Count = Field(50, description="merchants (or devices) in the federation")
    held_out_clients: Annotated[int, Field(ge=0)] = Field(
        0, description="more merchants beside them that take no part, and only deploy what came out"
    )
    people_per_client: Count | None = Field(None, description="people at each client; all who are left, when absent")
    panel_fraction: Fraction = Field(0.1, description="people who opted in as public data; in no client")
    dirichlet_alpha: Positive = Field(1.0, description="how even client sizes are; smaller is more uneven")
