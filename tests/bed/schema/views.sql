-- Who may see what, in the columns of QFieldCloud's own views. %(project)s is the release's project table.
-- Like the originals they number their rows with nextval(), so they fail in a read-only transaction.

CREATE SEQUENCE organizations_with_roles_vw_seq CYCLE;

CREATE VIEW organizations_with_roles_vw AS
SELECT
    nextval('organizations_with_roles_vw_seq') AS id,
    role.rank,
    role.organization_id,
    role.user_id,
    role.name,
    role.origin,
    role.is_public
FROM (
    SELECT DISTINCT ON (every.organization_id, every.user_id) every.*
    FROM (
        SELECT
            100 AS rank,
            organization.user_ptr_id AS organization_id,
            organization.organization_owner_id AS user_id,
            'admin'::text AS name,
            'organization_owner'::text AS origin,
            true AS is_public
        FROM core_organization organization
        UNION ALL
        SELECT
            CASE member.role WHEN 'admin' THEN 80 ELSE 60 END,
            member.organization_id,
            member.member_id,
            member.role::text,
            'organization_' || member.role,
            member.is_public
        FROM core_organizationmember member
    ) every
    ORDER BY every.organization_id, every.user_id, every.rank DESC
) role;

CREATE SEQUENCE projects_with_roles_vw_seq CYCLE;

CREATE VIEW projects_with_roles_vw AS
SELECT
    nextval('projects_with_roles_vw_seq') AS id,
    role.rank,
    role.project_id,
    role.user_id,
    role.name,
    role.is_incognito,
    role.origin
FROM (
    SELECT DISTINCT ON (every.project_id, every.user_id) every.*
    FROM (
        -- The owner, where the owner is a person.
        SELECT
            100 AS rank,
            project.id AS project_id,
            owner.id AS user_id,
            'admin'::text AS name,
            false AS is_incognito,
            'project_owner'::text AS origin
        FROM %(project)s project
        JOIN core_user owner ON owner.id = project.owner_id AND owner.type = 1
        UNION ALL
        -- Where it is an organization: its owner and its admins.
        SELECT 90, project.id, organization.organization_owner_id, 'admin', false, 'organization_owner'
        FROM %(project)s project
        JOIN core_organization organization ON organization.user_ptr_id = project.owner_id
        UNION ALL
        SELECT 80, project.id, member.member_id, 'admin', false, 'organization_admin'
        FROM %(project)s project
        JOIN core_organizationmember member ON member.organization_id = project.owner_id AND member.role = 'admin'
        UNION ALL
        -- Collaborators, and the members of teams that are collaborators.
        SELECT 70, collaborator.project_id, person.id, collaborator.role::text, collaborator.is_incognito,
            'collaborator'
        FROM core_projectcollaborator collaborator
        JOIN core_user person ON person.id = collaborator.collaborator_id AND person.type = 1
        UNION ALL
        SELECT 60, collaborator.project_id, member.member_id, collaborator.role::text, collaborator.is_incognito,
            'team_member'
        FROM core_projectcollaborator collaborator
        JOIN core_teammember member ON member.team_id = collaborator.collaborator_id
        UNION ALL
        -- And everyone, where the project is public.
        SELECT 10, project.id, person.id, 'reader', false, 'public'
        FROM %(project)s project
        CROSS JOIN core_user person
        WHERE project.is_public AND person.type = 1
    ) every
    ORDER BY every.project_id, every.user_id, every.rank DESC
) role;
