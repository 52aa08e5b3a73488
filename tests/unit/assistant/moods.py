"""How people sound: written before mood.toml, and not from it."""

UPSET = """
this is absolutely ridiculous
I am so angry right now
what a joke of a company
you people are useless
your service is a disgrace
I've had enough of this
this is unacceptable
are you kidding me
I'm furious
worst customer service ever
I'm sick and tired of this nonsense
you are a bunch of idiots
stupid bot
what the hell is wrong with you
this is bullshit
I'm fed up with your excuses
I will take my business elsewhere
I'm going to sue you
you'll hear from my lawyer
I am leaving you for another provider
cancel everything, I'm done with you
you've ruined my whole week
I'm disgusted by the way I was treated
absolutely appalling
I'm beyond frustrated
this is driving me insane
this is driving me up the wall
I'm at my wits' end with you lot
nobody there gives a damn
you don't care about your customers at all
shame on you
pathetic
what an absolute shambles
total waste of my time
you have wasted hours of my life
I'm livid
you're all liars
you lied to me
thieves, the lot of you
this is a scandal
I will report you to the ombudsman
I'll post this all over the internet
never using you again
I hate this company
I hate your stupid app
shut up
screw you
go to hell
piss off
for god's sake
for crying out loud
I'm in tears over this, nobody listens
I could scream
I'm losing my patience
my patience has run out
how dare you
I demand compensation
this is outrageous
you should be ashamed of yourselves
you are a complete waste of space
I'm extremely disappointed and upset
im so mad at u
WTF
this is insulting
incompetent clowns
it's a farce
I've never been treated so badly
I'm seething
you morons charged me again
crap service
you have got to be kidding me
this is the most incompetent outfit I have dealt with
I am absolutely raging
what a rip off
I'm so fed up
your lot couldn't organise a picnic
this is beyond a joke
I'm cancelling and telling everyone I know
stop wasting my time
utterly useless
I'm really cross now
honestly I've lost all faith in you
you stole my money
I will never recommend you to anyone
this makes me so angry
bloody useless chatbot
complete and utter rubbish service
get stuffed
I want my money back and an apology, this is a disgrace
I feel totally ignored by you people
""".strip().splitlines()

PERSON = """
can I speak to a person
let me talk to a human
I want to speak to a real person
get me an agent
human please
put me through to someone
is there a person I can talk to
I'd like to talk to a representative
connect me with an advisor
can somebody call me
please have someone ring me back
I don't want to talk to a bot
I want a human being
real human now
agent
operator
speak to agent
customer service representative please
transfer me to a colleague
give me a supervisor
I want to speak to your manager
can I talk to somebody in charge
is anyone real there
can I get a live agent
live chat with a person please
are there any humans at your company
stop, I need a person
could you pass me on to a member of staff
can you escalate this
please escalate my case
I'd rather speak with someone
let me speak with a doctor
can I talk to a nurse please
I want to see a real doctor, not a robot
how do I reach a human
what number do I call to speak to someone
do you have a phone number where I can talk to somebody
i wanna talk to a humna
speek to a person
talk to a persn please
can i tlak to an agent
representitive
i need to speak to an adviser not a machine
just connect me to support staff
call me back please
I need a callback
no more bots, a person
I want someone who understands me
get me someone who can actually help
would it be possible to speak with a member of your team
I need to talk to someone about this
hand me over to a colleague
may I talk to a specialist
someone from the bank should call me
I prefer to talk to a human
human
please transfer me
put a manager on
can a real person look at this
I want to talk to someone in person
let me chat with a live person
speak to someone
can anyone human answer
give me a human agent
could you get a human on the line
I would like to be connected to an employee
is it possible to talk with an actual person
someone real please
can I have a word with your boss
I need an agent asap
give me a phone call please
who can I speak with
let me have a real person
I want to chat with support staff not AI
please hand this to a colleague
get me your supervisor
can you put me thru to a person
i need to tlk to a human
talk to representative
any chance of speaking to somebody
I'd prefer a person for this
phone me
I want a doctor to look at this
ask a human to answer me
""".strip().splitlines()

UNHELPED = """
that does not help
that doesn't help me
that didn't work
it still doesn't work
still not working
you already told me that
I've tried that already
I did that and nothing changed
no, that's not what I asked
you're not answering my question
you didn't answer my question
that's not my question
same problem again
the same thing again
this is the third time I ask
I've asked this three times now
I already said that
as I said before
like I told you
you keep saying the same thing
you're going round in circles
we're going in circles
you don't understand
you are not understanding me
no that's wrong
that's not it
that isn't right
not helpful
unhelpful
that was no help at all
this is not solving my problem
my problem is still there
my issue is not resolved
it hasn't been solved
nothing has changed
no luck
didn't make any difference
that makes no difference
doesnt work either
tried it, no change
I've done all of that
I've restarted it ten times already
how many times do I have to say it
again, my question is about the refund
can you actually read what I wrote
did you even read my message
please read my question again
that's the wrong answer
you misunderstood me
what you say is irrelevant
that has nothing to do with my question
no improvement
it came back again after what you told me
I still have the same issue
still the same
still no answer
I'm still waiting for an answer
that link is useless to me
I followed your steps and it failed
your advice did nothing
I'm no further
you gave me that answer before
I still don't know what to do
that's no use to me
didn't help one bit
nope, still broken
you've said that twice now
I've already done that and it makes no odds
not what I was asking
you haven't answered me
I'm asking about the fee, not the limit
that's the same answer as before
it's still not fixed
same again, error
I don't think you understood
still nothing
that made it worse
we've been through this
I need a different answer
nothing works
this isn't answering what I asked
already did
you're just repeating yourself
""".strip().splitlines()

NONE = """
how do I change my address
my card was swallowed by the machine
thanks, that worked
perfect, thank you so much
that helps a lot
great, it works now
what are your opening hours
I'm angry with my brother, what can I do about the stress
my son is furious when I take his tablet away
my daughter hates broccoli
I hate heights, is there a ground floor branch
is this plant poisonous
the agent at the airport was kind
I work as a letting agent, which account do I need
I'm a human resources manager
how does the human heart work
what does a nurse earn
my manager needs an invoice
the operator of the machine needs training
do I need a representative on the board to sign
the fever has come back
it hurts when I swallow
I feel sad since my dog died
I cry a lot since the birth
I'm tired all the time
my stomach is upset after milk
I have an upset tummy
the baby is upset at night
can you help me with a transfer
I need help with my bill
does aspirin help against headaches
does this cream help
which tablets help with hay fever
my phone does not work abroad
the router isn't working since this morning
my card doesn't work at petrol stations
I still have a cough
I am still waiting for my parcel
still on the old tariff, can I change
I tried turning it off and on
I've already paid the invoice
I already have an account
it's the third time this month that I have a nosebleed
I asked my doctor and he said it's fine
as my doctor said before the operation
no problem at all
no, thank you
no, it's the left knee
yes please
that's right
that's correct
I don't understand the difference between debit and credit
what do you mean by deductible
could you explain that once more
sorry, I made a typo
stupid question, but how do I log in
sorry, silly me, wrong account
I was mad about the colour so I bought two
this is insanely good
that film was sick
the crazy thing is that it works
what a lovely service
you've been very helpful
I'm leaving the country next month
I'm leaving my job, what happens to my pension
I want to cancel my subscription
please close my account
how do I complain about a neighbour
where do I send a complaint form
my lawyer needs a statement
I've been sued by a customer, am I insured
I was lied to by the seller of my car
someone stole my bike
thieves broke into our cellar
call charges abroad
what does it cost to call Spain
I'd like to talk about my mortgage
I spoke to a person at the branch yesterday and she was great
who is the person named on the letter
the human body has how many bones
may I ask something else
again in English please
I'd like the same again
same delivery address as before
it worked the third time
this is the second invoice
waste of food in restaurants, figures please
how do I get rid of wasps
ridiculous amounts of pollen today, which tablet
my hell of a week is over, book me a massage
for heaven's sake is a nice song, who wrote it
can I pay by instalments
my wife is expecting, which cover do we need
is the branch open on Saturday
the pain is worse at night
I have tried ibuprofen and it takes the edge off
what's the difference between the two plans
my old phone was useless so I bought a new one
how do I update my email
thanks for being patient with me
my boss shouted at me and I feel awful
I need a doctor's note for work
does a person need a visa for Japan
can I talk about something else
is it safe to fly with a cold
I'd like a human touch in the letter, any wording
where can I find an agent for renting out my flat
the app works fine again
sorry for being slow
could you send me the link again
I'm upset about my exam results
""".strip().splitlines()
